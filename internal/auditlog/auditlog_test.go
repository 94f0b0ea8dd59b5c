package auditlog_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/auditlog"
)

var key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func public() ed25519.PublicKey { return slices.Clone(ed25519.PublicKey(key[32:])) }

// open opens a log whose checkpoints come after four lines.
func open(t *testing.T, path string, edit func(*auditlog.Config)) *auditlog.Writer {
	t.Helper()
	cfg := auditlog.Config{Path: path, Key: key, Every: 4, OnError: func(err error) { t.Error(err) }}
	if edit != nil {
		edit(&cfg)
	}
	w, err := auditlog.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func event(n int) []byte { return fmt.Appendf(nil, `{"n":%d,"who":"plugin-%d"}`, n, n) }

func read(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
}

func verify(t *testing.T, kept *auditlog.Checkpoint, files ...string) (auditlog.Report, error) {
	t.Helper()
	v, err := auditlog.NewVerifier(public(), kept)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range files {
		if err := v.File(fmt.Sprint("file", i+1), strings.NewReader(text)); err != nil {
			return auditlog.Report{}, err
		}
	}
	return v.Finish()
}

// written writes a log of so many events and returns its lines and checkpoints.
func written(t *testing.T, events int) (lines []string, checkpoints []auditlog.Checkpoint) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	w := open(t, path, func(c *auditlog.Config) {
		c.OnCheckpoint = func(p auditlog.Checkpoint) { checkpoints = append(checkpoints, p) }
	})
	for n := range events {
		w.Record(event(n))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	lines = read(t, path)
	lines[len(lines)-1] += "\n"
	return lines, checkpoints
}

// What is done to a log is found, and named by its line.
func TestVerify(t *testing.T) {
	t.Parallel()
	lines, checkpoints := written(t, 12)
	if report, err := verify(t, &checkpoints[len(checkpoints)-1], strings.Join(lines, "")); err != nil || report.Events != 12 || report.Unsigned != 0 {
		t.Fatalf("the log as it was written: %+v, %v", report, err)
	}
	last := len(lines)
	other, _ := written(t, 13)
	for _, test := range []struct {
		name string
		edit func(l []string) []string
		line int
		what string
	}{
		{"a digit", func(l []string) []string { l[4] = strings.Replace(l[4], `"n":`, `"n":9`, 1); return l }, 5, "changed"},
		{"a space", func(l []string) []string { l[4] = strings.Replace(l[4], `,`, `, `, 1); return l }, 5, "changed"},
		{"a field more", func(l []string) []string { l[4] = strings.Replace(l[4], `{`, `{"x":1,`, 1); return l }, 5, "changed"},
		{"the first line", func(l []string) []string { l[0] = strings.Replace(l[0], `"seq":1`, `"seq":0`, 1); return l }, 1, "changed"},
		{"a line removed", func(l []string) []string { return slices.Delete(l, 4, 5) }, 5, "numbers 5 to 5 were removed"},
		{"the beginning removed", func(l []string) []string { return l[2:] }, 0, ""},
		{"a line inserted", func(l []string) []string { return slices.Insert(l, 4, l[6]) }, 5, "removed"},
		{"a line twice", func(l []string) []string { return slices.Insert(l, 5, l[4]) }, 6, "inserted"},
		{"two lines swapped", func(l []string) []string { l[4], l[5] = l[5], l[4]; return l }, 5, "removed"},
		{"a line of another log", func(l []string) []string { l[4] = other[4]; return l }, 5, ""},
		{"half of the last line", func(l []string) []string { l[last-1] = l[last-1][:20]; return l }, last, "cut off"},
		{"no lines", func([]string) []string { return nil }, -1, "empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := verify(t, nil, strings.Join(test.edit(slices.Clone(lines)), ""))
			var problem *auditlog.ChangedError
			switch {
			case test.line == 0: // older files are kept elsewhere, which a checkpoint of theirs would show
				if err != nil {
					t.Errorf("the end of a log alone: %v", err)
				}
			case err == nil || !strings.Contains(err.Error(), test.what):
				t.Errorf("%v, want %q", err, test.what)
			case test.line > 0 && (!errors.As(err, &problem) || problem.Line != test.line || problem.File != "file1"):
				t.Errorf("%v, want line %d", err, test.line)
			}
		})
	}
}

// No byte of a log can be another.
func TestVerify_EveryByte(t *testing.T) {
	t.Parallel()
	lines, _ := written(t, 8)
	text := []byte(strings.Join(lines, ""))
	for i := 0; i < len(text); i += 13 {
		changed := slices.Clone(text)
		changed[i] ^= 1
		if _, err := verify(t, nil, string(changed)); err == nil {
			t.Errorf("byte %d of %q was changed unnoticed", i, text[max(i-20, 0):min(i+20, len(text))])
		}
	}
}

// Without its end a log holds, unless a checkpoint was kept elsewhere. Whoever has no key cannot write
// it anew.
func TestVerify_CutTail(t *testing.T) {
	t.Parallel()
	lines, checkpoints := written(t, 12)
	first := int(checkpoints[0].Sequence)
	cut := strings.Join(lines[:first+1], "")
	if report, err := verify(t, &checkpoints[0], cut); err != nil || report.Unsigned != 1 {
		t.Errorf("up to the checkpoint that was kept: %+v, %v", report, err)
	}
	var problem *auditlog.ChangedError
	if _, err := verify(t, &checkpoints[1], cut); !errors.As(err, &problem) || !strings.Contains(problem.What, "cut off") || problem.Line != first+1 {
		t.Errorf("a log that was cut off: %v", err)
	}
	early := strings.Join(lines[:first-1], "") // without any checkpoint
	if _, err := verify(t, nil, early); err == nil || !strings.Contains(err.Error(), "no checkpoint is signed") {
		t.Errorf("a log without checkpoints: %v", err)
	}
	for name, text := range map[string]string{"before its first checkpoint": early, "completely": ""} {
		if _, err := verify(t, &checkpoints[0], text); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("had got to line number %d", first)) {
			t.Errorf("a log that was cut off %s: %v", name, err)
		}
	}
	forged := checkpoints[0]
	forged.Sequence++
	if _, err := auditlog.NewVerifier(public(), &forged); err == nil {
		t.Error("a forged checkpoint is believed")
	}
	another, _ := written(t, 12) // by the same key, at another time
	if _, err := verify(t, &checkpoints[1], strings.Join(another, "")); err == nil || !strings.Contains(err.Error(), "anew") {
		t.Errorf("another log of the same key: %v", err)
	}
}

// Whoever has no key cannot go on for long without checkpoints, though each line follows the one before.
func TestVerify_WithoutCheckpointsForLong(t *testing.T) {
	t.Parallel()
	lines, _ := written(t, 4)
	text := strings.Join(lines, "")
	var forged strings.Builder
	forged.WriteString(text)
	before := strings.TrimSuffix(lines[len(lines)-1], "\n")
	for n := range auditlog.MaxEvery + 1 {
		before = fmt.Sprintf(`{"seq":%d,"prev":"%x","time":"2026-01-01T00:00:00Z","line":"event","event":{}}`, len(lines)+n+1, sha256.Sum256([]byte(before)))
		forged.WriteString(before + "\n")
		if n == 100 {
			if report, err := verify(t, nil, forged.String()); err != nil || report.Unsigned != 101 {
				t.Errorf("what is not signed yet is not told: %+v, %v", report, err)
			}
		}
	}
	if _, err := verify(t, nil, forged.String()); err == nil || !strings.Contains(err.Error(), "without a checkpoint") {
		t.Errorf("10,001 lines without a signature: %v", err)
	}
}

// A log goes on after its writer ended, also after one that ended in the middle of a line, and over
// files that were put aside.
func TestWriter_GoesOn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	for round := range 4 {
		w := open(t, path, func(c *auditlog.Config) { c.MaxBytes = 1500 })
		for n := range 5 {
			w.Record(event(round*5 + n))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if round == 1 {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = f.WriteString(`{"seq":9`)
			_ = f.Close()
		}
	}
	putAside(t, path) // and the process ends before the next file has a line
	if err := open(t, path, nil).Close(); err != nil {
		t.Fatal(err)
	}
	aside, err := auditlog.Files(path)
	if err != nil || len(aside) == 0 {
		t.Fatalf("files put aside: %v, %v", aside, err)
	}
	var texts []string
	for _, name := range append(aside, path) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	report, err := verify(t, nil, texts...)
	if err != nil || report.Events != 20 || report.Dropped != 1 || report.First != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := verify(t, nil, slices.Delete(texts, 0, 1)[0], texts[0]); err == nil {
		t.Error("a file twice is not noticed")
	}
}

// putAside does what the writer does with a full file, and did already where the last line filled it.
func putAside(t *testing.T, path string) {
	t.Helper()
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		return
	}
	var first struct{ Seq int }
	if err := json.Unmarshal([]byte(read(t, path)[0]), &first); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, fmt.Sprintf("%s.%020d", path, first.Seq)); err != nil {
		t.Fatal(err)
	}
}

// Who records never waits: what there is no room for is counted in the log.
func TestWriter_DropsAndCounts(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	entered, release := make(chan struct{}), make(chan struct{})
	blocked := false
	w := open(t, path, func(c *auditlog.Config) {
		c.Every, c.Buffer = 2, 3
		c.OnCheckpoint = func(auditlog.Checkpoint) { // the writer waits, nobody else does
			if !blocked {
				blocked = true
				close(entered)
				<-release
			}
		}
	})
	w.Record(event(0))
	<-entered
	for n := range 10 {
		w.Record(event(n + 1))
	}
	if w.Lost() != 7 {
		t.Errorf("%d were dropped, want 7", w.Lost())
	}
	close(release)
	if err := w.Close(); err == nil || err.Error() != "audit log: events that are not in it: 7" {
		t.Errorf("Close: %v", err)
	}
	w.Record(event(99))
	report, err := verify(t, nil, strings.Join(read(t, path), "")+"\n")
	if err != nil || report.Events != 4 || report.Dropped != 7 || w.Lost() != 8 {
		t.Errorf("%+v, lost %d, %v", report, w.Lost(), err)
	}
}

// Who keeps checkpoints and does not return holds up Close for CloseWait; the log is whole, and the error says it. A
// panic ends nothing.
func TestWriter_WhoKeepsCheckpointsFails(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		keep func(gate chan struct{})
		want string
	}{
		"blocks": {func(gate chan struct{}) { <-gate }, "AuditSinkConfig.OnCheckpoint has not returned: 5s after Close"},
		"panics": {func(chan struct{}) { panic("boom") }, "AuditSinkConfig.OnCheckpoint panicked: boom (at auditlog_test.go:"},
	} {
		path := filepath.Join(t.TempDir(), "audit.log")
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			var said []error
			w := open(t, path, func(c *auditlog.Config) {
				c.Every = 2
				c.OnCheckpoint = func(auditlog.Checkpoint) { tt.keep(gate) }
				c.OnError = func(err error) { said = append(said, err) }
			})
			w.Record(event(0))
			w.Record(event(1))
			synctest.Wait()
			w.Record(event(2))
			err := w.Close()
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || len(said) == 0 || said[0].Error() != err.Error() {
				t.Errorf("%s: got %v, and told %v", name, err, said)
			}
			close(gate)
		})
		report, err := verify(t, nil, strings.Join(read(t, path), "")+"\n")
		if err != nil || report.Events != 3 || report.Unsigned != 0 {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
	}
}

// A writer that does not get on says so: when the first event is dropped, once a minute from then on, where it is at one thing for
// longer than that, when it goes on, and at its end.
func TestWriter_SaysThatItIsBehind(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		told := make(chan auditlog.Behind, 16)
		var behind []auditlog.Behind
		hear := func() {
			synctest.Wait()
			for len(told) > 0 {
				behind = append(behind, <-told)
			}
		}
		var again []uint64
		w := open(t, path, func(c *auditlog.Config) {
			c.Every, c.Buffer = 2, 1
			c.OnCheckpoint = func(auditlog.Checkpoint) { <-gate }
			c.OnBehind = func(b auditlog.Behind) { told <- b }
			c.OnWritten = func(missing uint64) { again = append(again, missing) }
		})
		w.Record(event(0))
		synctest.Wait() // it waits for whoever keeps the checkpoint
		w.Record(event(1))
		time.Sleep(10 * time.Second)
		hear()
		if len(behind) != 0 {
			t.Errorf("told %+v of nothing", behind)
		}
		for range 70 { // there is room for none of them
			w.Record(event(2))
			time.Sleep(time.Second)
		}
		hear()
		if len(behind) != 2 || behind[0].Dropped != 1 || behind[0].For != 10*time.Second || behind[1].Dropped < 58 ||
			!strings.Contains(behind[1].Reason(), "AuditSinkConfig.OnCheckpoint for 1m10s") {
			t.Errorf("told %+v", behind)
		}
		time.Sleep(3 * time.Minute)
		hear()
		if n := len(behind); n < 4 || n > 6 || behind[n-1].Dropped != 0 {
			t.Errorf("while it stands: told %+v", behind)
		}
		close(gate)
		synctest.Wait()
		if err := w.Close(); err == nil || !strings.Contains(err.Error(), "events that are not in it: 70") || err.Error() != w.Close().Error() {
			t.Errorf("Close: %v", err)
		}
		if !slices.Equal(again, []uint64{70}) {
			t.Errorf("told that it goes on: %v", again)
		}
	})
	if report, err := verify(t, nil, strings.Join(read(t, path), "")+"\n"); err != nil || report.Dropped != 70 || report.Events != 2 {
		t.Errorf("%+v, %v", report, err)
	}
}

// A writer that has nothing to do says nothing, however long.
func TestWriter_AtRestSaysNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	synctest.Test(t, func(t *testing.T) {
		w := open(t, path, func(c *auditlog.Config) {
			c.OnBehind = func(b auditlog.Behind) { t.Errorf("told %+v", b) }
			c.OnWritten = func(missing uint64) { t.Errorf("told that it goes on: %d", missing) }
		})
		for n := range 5 {
			w.Record(event(n))
			time.Sleep(time.Hour)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A checkpoint comes after its time, too, where anything was written, and then no other.
func TestWriter_CheckpointsAfterTime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	synctest.Test(t, func(t *testing.T) {
		made := 0
		w := open(t, path, func(c *auditlog.Config) {
			c.Every, c.Interval = 100, time.Minute
			c.OnCheckpoint = func(auditlog.Checkpoint) { made++ }
		})
		w.Record(event(1))
		time.Sleep(90 * time.Second)
		synctest.Wait()
		if made != 1 {
			t.Errorf("%d checkpoints after 90 s", made)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if made != 1 {
			t.Errorf("%d checkpoints after an hour without events", made)
		}
		_ = w.Close()
	})
}

// What is no audit log is not written into.
func TestOpen_RefusesOtherFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notes")
	if err := os.WriteFile(path, []byte("milk\nbread\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auditlog.Open(auditlog.Config{Path: path, Key: key}); err == nil {
		t.Error("notes are an audit log")
	}
	if _, err := auditlog.Open(auditlog.Config{Path: filepath.Join(path, "none"), Key: key}); err == nil {
		t.Error("a path that cannot be is opened")
	}
}
