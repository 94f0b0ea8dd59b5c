package host_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// What a host decides stands in a log that holds, without empty fields, and a change of it is found.
func TestAuditSink_OfAHost(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var kept connectplugin.AuditCheckpoint
	sink, err := connectplugin.NewAuditSink(connectplugin.AuditSinkConfig{
		Path: path, Key: private, Logger: hosttest.Logger(t),
		OnCheckpoint: func(c connectplugin.AuditCheckpoint) { kept = c },
	})
	if err != nil {
		t.Fatal(err)
	}
	host := administered(t, func(c *connectplugin.ServeConfig) { c.Audit = sink.Record })
	operator := host.Enrol(t, "operator", nil)
	_, err = hosttest.Register(t, operator, "logger", "1.0.0")
	if err == nil {
		t.Error("the operator provides a logger")
	}
	host.Stop(t)
	if err := sink.Close(); err != nil || sink.Dropped() != 0 {
		t.Errorf("Close: %v, dropped %d", err, sink.Dropped())
	}
	files, err := connectplugin.AuditFiles(path)
	if err != nil || len(files) != 1 {
		t.Fatalf("files: %v, %v", files, err)
	}
	report, err := connectplugin.VerifyAudit(public, &kept, files...)
	if err != nil || report.Events < 3 || report.Unsigned != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"kind":"issued"`, `"self_id":"operator"`, `"right":"Provides"`, `"subject":"logger"`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the log has no %s: %s", want, text)
		}
	}
	if bytes.Contains(text, []byte(`:""`+`,"count"`)) || bytes.Contains(text, []byte(`"grant_id":""`)) || strings.Contains(string(text), operator.RuntimeToken()) {
		t.Errorf("the log has empty fields, or a token: %s", text)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte(`"self_id":"operator"`), []byte(`"self_id":"somebody"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	var problem *connectplugin.AuditLogError
	if _, err := connectplugin.VerifyAudit(public, nil, path); !errors.As(err, &problem) || problem.File != path || problem.Line != 2 {
		t.Errorf("a changed name: %v", err)
	}
}

// A sink that could not do what it promises is not made.
func TestNewAuditSink_Refuses(t *testing.T) {
	t.Parallel()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	path := filepath.Join(t.TempDir(), "audit.log")
	for name, cfg := range map[string]connectplugin.AuditSinkConfig{
		"Path":               {Key: key},
		"Key":                {Path: path},
		"CheckpointEvery":    {Path: path, Key: key, CheckpointEvery: 10_001},
		"CheckpointInterval": {Path: path, Key: key, CheckpointInterval: -1},
		"MaxBytes":           {Path: path, Key: key, MaxBytes: -1},
		"Buffer":             {Path: path, Key: key, Buffer: -1},
		"Buffer: is more":    {Path: path, Key: key, Buffer: 1 << 50},
		"CheckpointInterval: 30ns is too short; write 1ms or more": {Path: path, Key: key, CheckpointInterval: 30},
	} {
		if _, err := connectplugin.NewAuditSink(cfg); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A sink that stands still, because whoever keeps its checkpoints does not return, drops events; Logger is told of it, and when it
// goes on, and Close says how many.
func TestAuditSink_ThatStandsStillIsTold(t *testing.T) {
	t.Parallel()
	log, gate := &hosttest.Buffer{}, make(chan struct{})
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := connectplugin.NewAuditSink(connectplugin.AuditSinkConfig{
		Path: filepath.Join(t.TempDir(), "audit.log"), Key: key, CheckpointEvery: 1, Buffer: 1,
		OnCheckpoint: func(connectplugin.AuditCheckpoint) { <-gate }, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		sink.Record(connectplugin.AuditEvent{Time: time.Now(), Kind: connectplugin.AuditIssued})
	}
	said := func(words ...string) func() bool {
		return func() bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(log.String(), word) })
		}
	}
	hosttest.Eventually(t, "the log says that events are dropped", said("level=ERROR", "AuditSinkConfig.Buffer", "reason="))
	close(gate)
	hosttest.Eventually(t, "the log says that it goes on", said("level=WARN", "is written again"))
	dropped := sink.Dropped()
	if err := sink.Close(); dropped < 10 || err == nil || !strings.Contains(err.Error(), fmt.Sprint("not in it: ", dropped)) {
		t.Errorf("dropped %d, Close: %v", dropped, err)
	}
}
