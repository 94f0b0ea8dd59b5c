package ctl_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// writeLog writes three events with the key in a directory, and keeps the last checkpoint there.
func writeLog(t *testing.T, dir, path string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "audit.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		t.Fatalf("a key of the type %T", parsed)
	}
	sink, err := connectplugin.NewAuditSink(connectplugin.AuditSinkConfig{
		Path: path, Key: private,
		OnCheckpoint: func(c connectplugin.AuditCheckpoint) {
			b, err := json.Marshal(c)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "kept.json"), b, 0o600)
			}
			if err != nil {
				t.Error(err)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []connectplugin.AuditKind{connectplugin.AuditDenied, connectplugin.AuditIssued, connectplugin.AuditEnded} {
		sink.Record(connectplugin.AuditEvent{Time: time.Now(), Kind: kind, SelfID: "store"})
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}
