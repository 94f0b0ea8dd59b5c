package auditlog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/auditlog"
)

// fill opens a log whose checkpoints are as far apart as can be, writes so many events and ends.
func fill(t *testing.T, path string, events int) {
	t.Helper()
	w := open(t, path, func(c *auditlog.Config) { c.Every, c.Interval, c.Buffer = auditlog.MaxEvery, time.Hour, events })
	for range events {
		w.Record([]byte("{}"))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// The longest distance of checkpoints that a configuration may have is one that the verifier takes.
func TestWriter_MostLinesBetweenCheckpoints(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	fill(t, path, auditlog.MaxEvery+1)
	if report := whole(t, path); report.Checkpoints < 2 || report.Events != auditlog.MaxEvery+1 {
		t.Errorf("%+v", report)
	}
}

// The lines of a process that was killed before its checkpoint count with those of the next one.
func TestWriter_KilledBeforeTheCheckpoint(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	fill(t, path, 9_400)
	text := read(t, path)
	if err := os.WriteFile(path, []byte(strings.Join(text[:len(text)-1], "")), 0o600); err != nil { // the last line is the checkpoint
		t.Fatal(err)
	}
	fill(t, path, 700)
	if report := whole(t, path); report.Events != 10_100 {
		t.Errorf("%+v", report)
	}
}

// What was dropped is told though no event follows: after the interval, or at the end.
func TestWriter_DroppedAndNoEventFollows(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]time.Duration{"the interval": time.Minute, "the end": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "audit.log")
			told := func(t *testing.T) {
				t.Helper()
				report, err := verify(t, nil, strings.Join(read(t, path), "")+"\n")
				if err != nil || report.Dropped != 3 || report.Events != 1 || report.Unsigned != 0 {
					t.Errorf("%+v, %v", report, err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				w := open(t, path, func(c *auditlog.Config) { c.Every, c.Interval, c.OnError = 2, time.Minute, nil })
				w.Record(event(0))
				synctest.Wait() // nothing is unsigned any more
				for range 3 {
					w.Record([]byte("{")) // cannot be written
				}
				synctest.Wait()
				if wait > 0 {
					time.Sleep(wait)
					synctest.Wait()
					told(t)
				}
				if err := w.Close(); err == nil {
					t.Error("nobody is told what could not be written")
				}
				told(t)
			})
		})
	}
}
