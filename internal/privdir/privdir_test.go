//go:build linux || darwin

package privdir_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/privdir"
)

// TestMain is also a process that makes a directory, names it, and is killed.
func TestMain(m *testing.M) {
	if os.Getenv("PRIVDIR_TEST_MAKE") == "" {
		os.Exit(m.Run())
	}
	var r privdir.Root
	dir, err := r.Make(nil)
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString(dir)
	_ = os.Stdout.Close()
	<-time.After(time.Hour) // it is killed before; a select without cases would be a deadlock
	r.Close()
}

func TestRoot(t *testing.T) {
	var r privdir.Root
	t.Setenv("TMPDIR", shortDir(t))
	one, two := mustMake(t, &r), mustMake(t, &r)
	if one == two || filepath.Dir(one) != filepath.Dir(two) {
		t.Errorf("%s and %s", one, two)
	}
	for _, dir := range []string{one, two} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	root := filepath.Dir(one)
	if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("root: %v, %v", info, err)
	}
	r.Close()
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Errorf("root after Close: %v", err)
	}
	r.Close()
	if again := mustMake(t, &r); filepath.Dir(again) == root {
		t.Errorf("again: %s", again)
	}
	r.Close()
}

// Where there can be no directory the error says where it would have been, and what to set.
func TestRoot_OfNoUse(t *testing.T) {
	base := filepath.Join(shortDir(t), "gone")
	t.Setenv("TMPDIR", base)
	var r privdir.Root
	_, made := r.Make(nil)
	_, file := r.File()
	for _, err := range []error{made, file} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), base+": ") || !strings.Contains(err.Error(), "TMPDIR") {
			t.Errorf("no directory: %v", err)
		}
	}
	if err := os.Mkdir(base, 0o700); err != nil {
		t.Fatal(err)
	}
	mustMake(t, &r)
	r.Close()
}

// Files of one user share a directory that no other may enter, and a name comes once.
func TestFile(t *testing.T) {
	var r privdir.Root
	t.Setenv("TMPDIR", shortDir(t))
	named := map[string]bool{}
	for range 3 {
		path, err := r.File()
		if err != nil || named[path] {
			t.Fatalf("%s after %v, %v", path, named, err)
		}
		named[path] = true
		if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	dir := mustMake(t, &r)
	for path := range named {
		if strings.HasPrefix(path, dir) || filepath.Dir(filepath.Dir(path)) != filepath.Dir(dir) {
			t.Errorf("%s beside %s", path, dir)
		}
	}
	r.Close()
	if _, err := os.Stat(filepath.Dir(dir)); !os.IsNotExist(err) {
		t.Errorf("after Close: %v", err)
	}
}

// What a process left behind that was killed goes with the next root; what belongs to one
// that lives stays.
func TestSweep(t *testing.T) {
	tmp := shortDir(t)
	t.Setenv("TMPDIR", tmp)
	var living, fresh privdir.Root
	keep := mustMake(t, &living)
	defer living.Close()
	left, kill := leftBehind(t)
	foreign := filepath.Join(tmp, "connectplugin-of-somebody")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "socket"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustMake(t, &fresh)
	fresh.Close()
	if _, err := os.Stat(left); err != nil {
		t.Errorf("of a process that lives: %v", err)
	}
	kill()
	mustMake(t, &fresh)
	defer fresh.Close()
	if _, err := os.Stat(filepath.Dir(left)); !os.IsNotExist(err) {
		t.Errorf("of a killed process: %v", err)
	}
	for _, dir := range []string{keep, foreign} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	t.Setenv("TMPDIR", shortDir(t))
	var r privdir.Root
	defer r.Close()
	dir, err := r.Make(&privdir.Owner{UID: 12345, GID: 12346})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "stat", "-c", "%u %g %a", dir).Output(); err != nil || strings.TrimSpace(string(out)) != "12345 12346 700" {
		t.Errorf("%q, %v", out, err)
	}
}

// leftBehind returns a directory of another process, and what kills that.
func leftBehind(t *testing.T) (dir string, kill func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "PRIVDIR_TEST_MAKE=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	buf := make([]byte, 256)
	for n := 0; err == nil; n, err = out.Read(buf) {
		b.Write(buf[:n])
	}
	return b.String(), func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func mustMake(t *testing.T, r *privdir.Root) string {
	t.Helper()
	dir, err := r.Make(nil)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// shortDir is a directory whose name leaves room for that of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "privdir") //nolint:usetesting // a socket needs a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// A root that something else took away, such as what clears directories for temporary files, is made again, and what has its
// name by then is nobody's but whose it is.
func TestRoot_TakenAway(t *testing.T) {
	t.Setenv("TMPDIR", shortDir(t))
	for what, in := range map[string]func(t *testing.T, root string){
		"nothing":                  func(*testing.T, string) {},
		"what others may write to": func(t *testing.T, root string) { t.Helper(); mustHave(t, root, 0o777) },
		"a file":                   func(t *testing.T, root string) { t.Helper(); mustWrite(t, root) },
		"a link": func(t *testing.T, root string) {
			t.Helper()
			if err := os.Symlink(shortDir(t), root); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for how, get := range map[string]func(r *privdir.Root) (string, error){
			"Make": func(r *privdir.Root) (string, error) { return r.Make(nil) },
			"File": func(r *privdir.Root) (string, error) { path, err := r.File(); return filepath.Dir(path), err },
		} {
			var r privdir.Root
			root := filepath.Dir(mustMake(t, &r))
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
			in(t, root)
			dir, err := get(&r)
			if err != nil {
				t.Errorf("%s after the root was taken away, with %s in its place: %v", how, what, err)
				continue
			}
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 || filepath.Dir(dir) == root {
				t.Errorf("%s, with %s in its place: %s, %v, %v", how, what, dir, info, err)
			}
			r.Close()
			if _, err := os.Stat(filepath.Dir(dir)); !os.IsNotExist(err) {
				t.Errorf("%s, with %s in its place: the new root after Close: %v", how, what, err)
			}
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// mustHave makes a directory.
func mustHave(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Mkdir(path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
}

func mustWrite(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is made where TMPDIR is relative is found by a process with another working directory, too.
func TestRoot_RelativeDirectory(t *testing.T) {
	dir := shortDir(t)
	t.Chdir(dir)
	t.Setenv("TMPDIR", ".")
	var r privdir.Root
	defer r.Close()
	path, err := r.File()
	if err != nil || !filepath.IsAbs(path) {
		t.Errorf("%q, %v", path, err)
	}
}
