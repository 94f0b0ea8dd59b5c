package auditlog_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/auditlog"
)

// A log at a symbolic link stays where the link leads: the disk for it, or the volume of a container.
func TestWriter_BehindALink(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]func(disk string) string{
		"absolute": func(disk string) string { return filepath.Join(disk, "audit.log") },
		"relative": func(string) string { return filepath.Join("disk", "audit.log") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			disk, path := filepath.Join(dir, "disk"), filepath.Join(dir, "audit.log")
			if err := os.Mkdir(disk, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target(disk), path); err != nil {
				t.Skip(err)
			}
			for round := range 3 { // the first makes the file
				w := open(t, path, func(c *auditlog.Config) { c.MaxBytes = 1500 })
				for n := range 20 {
					w.Record(event(round*20 + n))
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if to, err := os.Readlink(path); err != nil || to != target(disk) {
				t.Errorf("the link leads to %q: %v", to, err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
				t.Errorf("beside the link: %v, %v", entries, err)
			}
			files, err := auditlog.All(path)
			if err != nil || len(files) < 3 {
				t.Fatalf("files %v, %v", files, err)
			}
			var texts []string
			for _, file := range files {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				texts = append(texts, string(b))
			}
			if report, err := verify(t, nil, texts...); err != nil || report.Events != 60 || report.First != 1 {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
}
