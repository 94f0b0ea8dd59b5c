package auditlog_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/auditlog"
)

// elsewhere is a time as another zone writes it.
func elsewhere(t *testing.T, stamp string) string {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		t.Fatal(err)
	}
	return at.In(time.FixedZone("", 3600)).Format(time.RFC3339Nano)
}

// whole reads all files of a log and verifies them.
func whole(t *testing.T, path string) auditlog.Report {
	t.Helper()
	files, err := auditlog.All(path)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	report, err := verify(t, nil, texts...)
	if err != nil {
		t.Errorf("%v in\n%s", err, strings.Join(texts, "--\n"))
	}
	return report
}

// Two writers of one file would make two chains of it. The second one is refused, also after the first
// one began another file, and comes in when the first has ended.
func TestOpen_OneWriterAtATime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	w := open(t, path, func(c *auditlog.Config) { c.MaxBytes = 700 })
	for n := range 20 {
		if second, err := auditlog.Open(auditlog.Config{Path: path, Key: key}); err == nil || !strings.Contains(err.Error(), "is being written") {
			t.Fatalf("a second writer after %d events: %v, %v", n, second, err)
		}
		w.Record(event(n))
	}
	for files := []string(nil); len(files) < 2; time.Sleep(time.Millisecond) { // until it writes another file
		var err error
		if files, err = auditlog.Files(path); err != nil {
			t.Fatal(err)
		}
	}
	if second, err := auditlog.Open(auditlog.Config{Path: path, Key: key}); err == nil || !strings.Contains(err.Error(), "is being written") {
		t.Fatalf("a second writer of another file: %v, %v", second, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(t, path, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if report := whole(t, path); report.Events != 20 || report.Dropped != 0 {
		t.Errorf("%+v", report)
	}
}

// A process may end when its full file has the other name already, and no file is in its place yet.
func TestOpen_AfterHalfOfPuttingAside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	for round := range 3 {
		w := open(t, path, nil)
		w.Record(event(round))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var first int
		if _, err := fmt.Sscanf(read(t, path)[0], `{"seq":%d,`, &first); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(path, fmt.Sprintf("%s.%020d", path, first)); err != nil {
			t.Fatal(err)
		}
		if report := whole(t, path); report.Events != uint64(round)+1 {
			t.Errorf("round %d, while it is put aside: %+v", round, report)
		}
	}
	w := open(t, path, func(c *auditlog.Config) { c.MaxBytes = 500 }) // and it is put aside again later
	for n := range 5 {
		w.Record(event(n))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if report := whole(t, path); report.Events != 8 || report.First != 1 {
		t.Errorf("%+v", report)
	}
}

// A file that was put aside begins with the number in its name: what is gone from its beginning, and
// from that of the log with it, is found.
func TestVerify_FilesBeginAsTheirNamesSay(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	w := open(t, path, func(c *auditlog.Config) { c.MaxBytes = 500 })
	for n := range 12 {
		w.Record(event(n))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := auditlog.Files(path)
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	_, later, _ := strings.Cut(string(text), "\n")
	for content, want := range map[string]string{string(text): "", later: "is number 2", "": "is missing", "\n": "was changed"} {
		v, err := auditlog.NewVerifier(public(), nil)
		if err != nil {
			t.Fatal(err)
		}
		err = v.File(files[0], strings.NewReader(content))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), files[0]+":1: "+want)) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// A file that has the name already is not written over, and the log goes on where it is.
func TestWriter_PutsNothingOverAnother(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	precious := path + ".00000000000000000001"
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auditlog.Open(auditlog.Config{Path: path, Key: key}); err == nil {
		t.Error("it goes on after a file that is no audit log")
	}
	if err := os.Remove(precious); err != nil {
		t.Fatal(err)
	}
	told := 0
	w := open(t, path, func(c *auditlog.Config) { c.MaxBytes, c.OnError = 500, func(error) { told++ } })
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range 8 {
		w.Record(event(n))
	}
	if err := w.Close(); err == nil || told == 0 {
		t.Errorf("nobody is told: %v, %d", err, told)
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
	if report, err := verify(t, nil, strings.Join(read(t, path), "")+"\n"); err != nil || report.Events != 8 {
		t.Errorf("%+v, %v", report, err)
	}
}
