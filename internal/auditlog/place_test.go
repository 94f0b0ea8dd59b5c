package auditlog_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/auditlog"
)

// A log whose file somebody takes away goes on where it is looked for, and tells: what is written to a file that has no name is lost.
func TestWriter_TheFileIsTakenAway(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		take         func(path, elsewhere string) error
		told         string
		before, lost uint64 // events of those before that are elsewhere, and that are nowhere
	}{
		"removed": {func(path, _ string) error { return os.Remove(path) }, "moved or removed it; it goes on in another file", 0, 2},
		"moved":   {os.Rename, "moved or removed it; it goes on in another file", 2, 0},
		"moved, and an empty one is there": {func(path, elsewhere string) error {
			return errors.Join(os.Rename(path, elsewhere), os.WriteFile(path, nil, 0o600))
		}, "moved or removed it; it goes on in another file", 2, 0},
		"cut off, and copied before": {func(path, elsewhere string) error {
			text, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(elsewhere, text, 0o600), os.Truncate(path, 0))
		}, "cut it off at 0 of ", 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path, elsewhere := filepath.Join(dir, "audit.log"), filepath.Join(dir, "elsewhere")
			signed, told := make(chan uint64, 16), make(chan error, 16)
			w := open(t, path, func(c *auditlog.Config) {
				c.Every, c.OnError = 1, func(err error) { told <- err }
				c.OnCheckpoint = func(p auditlog.Checkpoint) { signed <- p.Sequence }
			})
			written := func(n int) {
				w.Record(event(n))
				<-signed
			}
			<-signed // that the writing began
			written(0)
			written(1)
			if err := tt.take(path, elsewhere); err != nil {
				t.Fatal(err)
			}
			written(2)
			written(3)
			if len(told) != 1 {
				t.Fatalf("told %d times", len(told))
			}
			if err := <-told; !strings.Contains(err.Error(), tt.told) || !strings.Contains(err.Error(), path) {
				t.Errorf("told %v", err)
			}
			if err := w.Close(); err == nil || !strings.Contains(err.Error(), tt.told) {
				t.Errorf("at the end: %v", err)
			}
			var texts []string
			if tt.before > 0 {
				texts = append(texts, strings.Join(read(t, elsewhere), "")+"\n")
			}
			report, err := verify(t, nil, append(texts, strings.Join(read(t, path), "")+"\n")...)
			if err != nil || report.Events != 4-tt.lost || report.Unsigned != 0 {
				t.Errorf("%+v, %v", report, err)
			}
			if err := open(t, path, nil).Close(); err != nil { // and the next one goes on with it
				t.Error(err)
			}
		})
	}
}

// What is not the log stays as it is: events are missing, and counted, until it is out of the way.
func TestWriter_AnotherFileIsInItsPlace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	signed, told := make(chan uint64, 16), make(chan error, 16)
	w := open(t, path, func(c *auditlog.Config) {
		c.Every, c.OnError = 1, func(err error) { told <- err }
		c.OnCheckpoint = func(p auditlog.Checkpoint) { signed <- p.Sequence }
	})
	<-signed
	w.Record(event(0))
	<-signed
	if err := errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, []byte("precious"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.Record(event(1))
		if err := <-told; !strings.Contains(err.Error(), "move that one away") {
			t.Errorf("told %v", err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.Record(event(2))
	<-signed
	if err := w.Close(); err == nil {
		t.Error("nobody is told at the end")
	}
	report, err := verify(t, nil, strings.Join(read(t, path+".old"), "")+"\n", strings.Join(read(t, path), "")+"\n")
	if err != nil || report.Events != 2 || report.Dropped != 2 {
		t.Errorf("%+v, %v", report, err)
	}
}

// Of a log that is cut off in the middle of a line no half stays, with which the next one could not be read.
func TestWriter_CutOffInTheMiddle(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]int64{"of the first line": 10, "of a later one": 300} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "audit.log")
			signed, told := make(chan uint64, 16), make(chan error, 16)
			w := open(t, path, func(c *auditlog.Config) {
				c.Every, c.OnError = 1, func(err error) { told <- err }
				c.OnCheckpoint = func(p auditlog.Checkpoint) { signed <- p.Sequence }
			})
			<-signed
			w.Record(event(0))
			last := <-signed
			if err := os.Truncate(path, at); err != nil {
				t.Fatal(err)
			}
			w.Record(event(1))
			<-signed
			if err := <-told; !strings.Contains(err.Error(), "cut it off at") {
				t.Errorf("told %v", err)
			}
			if err := w.Close(); err == nil {
				t.Error("nobody is told at the end")
			}
			lines := read(t, path)
			for i, l := range lines {
				if !json.Valid([]byte(l)) {
					t.Errorf("line %d is %q", i+1, l)
				}
			}
			if want := fmt.Sprintf(`{"seq":%d,`, last+1); !strings.HasPrefix(lines[len(lines)-2], want) {
				t.Errorf("the event is in %q, want %s", lines[len(lines)-2], want)
			}
			if err := open(t, path, nil).Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
