package auditlog_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/auditlog"
)

// The longest distance of checkpoints that a configuration may have is one that the verifier takes.
func TestWriter_MostLinesBetweenCheckpoints(t *testing.T) {
	t.Parallel()
	for _, every := range []int{auditlog.MaxEvery, auditlog.MaxEvery - 100, auditlog.MaxEvery - 1} {
		path := filepath.Join(t.TempDir(), "audit.log")
		w := open(t, path, func(c *auditlog.Config) { c.Every, c.Interval, c.Buffer = every, time.Hour, 30_000 })
		for n := range auditlog.MaxEvery + 1_000 {
			w.Record(event(n))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if report := whole(t, path); report.Checkpoints < 2 {
			t.Errorf("every %d: %+v", every, report)
		}
	}
}

// A process that is killed again and again before its first checkpoint leaves a log that holds.
func TestWriter_KilledBeforeTheCheckpoint(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	lines := 0
	for range 12 { // what the processes wrote, each without its checkpoint
		w := open(t, path, func(c *auditlog.Config) { c.Every, c.Interval = 1_000, time.Hour })
		for n := range 950 {
			w.Record(event(n))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		text := read(t, path)
		if err := os.WriteFile(path, []byte(strings.Join(text[:len(text)-1], "")), 0o600); err != nil {
			t.Fatal(err)
		}
		lines = len(text) - 1
	}
	w := open(t, path, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	report := whole(t, path)
	t.Logf("%d lines: %+v", lines, report)
}

// What comes while the writer ends is written, or counted.
func TestWriter_NothingIsLostUncountedAtTheEnd(t *testing.T) {
	t.Parallel()
	for round := range 20 {
		path := filepath.Join(t.TempDir(), "audit.log")
		w := open(t, path, func(c *auditlog.Config) { c.Buffer = 1 << 14 })
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for n := range 300 {
					w.Record(event(n))
				}
			})
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if report := whole(t, path); report.Events+w.Lost() != 1200 {
			t.Fatalf("round %d: %d written, %d dropped of 1200", round, report.Events, w.Lost())
		}
	}
}

// What was dropped is told though no event comes after it: by the checkpoint of the interval where nothing
// else was written, and by that of the end.
func TestWriter_DroppedAndNoEventFollows(t *testing.T) {
	t.Parallel()
	for name, interval := range map[string]time.Duration{"the interval": time.Millisecond, "the end": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "audit.log")
			signed := make(chan auditlog.Checkpoint, 1_000)
			w := open(t, path, func(c *auditlog.Config) {
				c.Every, c.Interval, c.OnError = 2, interval, func(error) {}
				c.OnCheckpoint = func(p auditlog.Checkpoint) { signed <- p }
			})
			w.Record(event(0))
			<-signed // nothing is unsigned any more
			for range 3 {
				w.Record([]byte("{")) // cannot be written
			}
			for told := w.Lost(); interval < time.Hour && told < 3; told = w.Lost() {
				time.Sleep(time.Millisecond)
			}
			if interval < time.Hour {
				<-signed
			}
			if err := w.Close(); err == nil {
				t.Error("nobody is told what could not be written")
			}
			report, err := verify(t, nil, strings.Join(read(t, path), "")+"\n")
			if err != nil || report.Dropped != 3 || report.Events != 1 || report.Unsigned != 0 {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
}

// Not a bit of a log can be another, nor can any line be away, twice or elsewhere, where the last checkpoint is kept.
func TestVerify_EveryBitAndLine(t *testing.T) {
	t.Parallel()
	lines, kept := written(t, 9)
	last := &kept[len(kept)-1]
	text := strings.Join(lines, "")
	if _, err := verify(t, last, text); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(text); i += 29 {
		for bit := range 8 {
			b := []byte(text)
			b[i] ^= 1 << bit
			if _, err := verify(t, last, string(b)); err == nil {
				t.Errorf("bit %d of byte %d", bit, i)
			}
		}
	}
	for i := range lines {
		for j := range len(lines) + 1 {
			moved := append(append([]string{}, lines[:i]...), lines[i+1:]...)
			if j < len(lines) {
				moved = append(moved[:j:j], append([]string{lines[i]}, moved[j:]...)...)
			}
			if _, err := verify(t, last, strings.Join(moved, "")); err == nil && i != j && i > 0 {
				t.Errorf("line %d to %d", i, j)
			}
			twice := append(append(append([]string{}, lines[:min(j, len(lines))]...), lines[i]), lines[min(j, len(lines)):]...)
			if _, err := verify(t, last, strings.Join(twice, "")); err == nil {
				t.Errorf("line %d also at %d", i, j)
			}
		}
	}
	for n := range len(lines) {
		if _, err := verify(t, last, strings.Join(lines[:n], "")); err == nil {
			t.Errorf("cut off after %d lines", n)
		}
	}
}
