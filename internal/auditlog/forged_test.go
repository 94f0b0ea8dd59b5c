package auditlog_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/auditlog"
)

// Nothing can be written differently though it means the same, not even in the last checkpoint, which
// no line follows.
func TestVerify_OneWayToWriteALine(t *testing.T) {
	t.Parallel()
	lines, _ := written(t, 4)
	last := len(lines) - 1
	end := lines[last]
	if !strings.Contains(end, `"line":"checkpoint"`) || !strings.HasSuffix(end, "==\"}\n") {
		t.Fatalf("the last line is %q", end)
	}
	idle := strings.IndexByte("AQgw", end[len(end)-6]) // of the last digit four bits are idle
	_, stamp, _ := strings.Cut(end, `"time":"`)
	stamp, _, _ = strings.Cut(stamp, `"`)
	for name, edit := range map[string]func() string{
		"idle bits of base64":      func() string { return end[:len(end)-6] + string("BRhx"[idle]) + end[len(end)-5:] },
		"a line feed in base64":    func() string { return strings.Replace(end, `"signature":"`, `"signature":"\n`, 1) },
		"a field of other lines":   func() string { return strings.Replace(end, `"signature"`, `"dropped":7,"signature"`, 1) },
		"an event":                 func() string { return strings.Replace(end, `"signature"`, `"event":{},"signature"`, 1) },
		"a key":                    func() string { return strings.Replace(end, `"signature"`, `"key":"AAAA","signature"`, 1) },
		"the time of another zone": func() string { return strings.Replace(end, stamp, elsewhere(t, stamp), 1) },
		"a time without Z":         func() string { return strings.Replace(end, stamp, strings.Replace(stamp, "Z", "+00:00", 1), 1) },
		"a field twice":            func() string { return strings.Replace(end, `"line"`, `"line":"checkpoint","line"`, 1) },
		"letters of a field":       func() string { return strings.Replace(end, `"line"`, `"LINE"`, 1) },
	} {
		forged := edit()
		if forged == end {
			t.Fatalf("%s: nothing was changed", name)
		}
		_, err := verify(t, nil, strings.Join(lines[:last], "")+forged)
		var problem *auditlog.ChangedError
		if !errors.As(err, &problem) || problem.Line != last+1 || !strings.Contains(problem.What, "changed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A log is believed to nobody but the owner of its key.
func TestVerify_AnotherKey(t *testing.T) {
	t.Parallel()
	lines, checkpoints := written(t, 4)
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	public, _ := other.Public().(ed25519.PublicKey)
	if _, err := auditlog.NewVerifier(public, &checkpoints[0]); err == nil {
		t.Error("a checkpoint of another key is believed")
	}
	for first, want := range []string{"another key", "did not sign"} { // without the line that names the key, too
		v, err := auditlog.NewVerifier(public, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = v.File("log", strings.NewReader(strings.Join(lines[first:], "")))
		var problem *auditlog.ChangedError
		if !errors.As(err, &problem) || !strings.Contains(problem.What, want) {
			t.Errorf("from line %d on: %v", first+1, err)
		}
	}
}

// Where the end was cut off and the log went on, whoever kept a checkpoint finds out.
func TestVerify_CutTailThatWentOn(t *testing.T) {
	t.Parallel()
	for more := range 9 {
		path := filepath.Join(t.TempDir(), "audit.log")
		var kept auditlog.Checkpoint
		w := open(t, path, func(c *auditlog.Config) { c.OnCheckpoint = func(p auditlog.Checkpoint) { kept = p } })
		for n := range 6 {
			w.Record(event(n))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		cut := strings.Join(read(t, path)[:4], "")
		if err := os.WriteFile(path, []byte(cut), 0o600); err != nil {
			t.Fatal(err)
		}
		w = open(t, path, nil)
		for n := range more {
			w.Record(event(n))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(read(t, path), "") + "\n"
		if _, err := verify(t, nil, text); err != nil {
			t.Errorf("%d more: without a checkpoint: %v", more, err)
		}
		var problem *auditlog.ChangedError
		if _, err := verify(t, &kept, text); !errors.As(err, &problem) ||
			!strings.Contains(problem.What, "cut off") && !strings.Contains(problem.What, "written anew") {
			t.Errorf("%d more: %v", more, err)
		}
	}
}
