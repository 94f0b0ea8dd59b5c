package certs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

func TestCreateFile(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "key")
	if err := certs.CreateFile(path, []byte("one"), certs.PrivateFile); err != nil {
		t.Fatal(err)
	}

	if err := certs.CreateFile(path, []byte("two"), certs.PrivateFile); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second time: %v, want fs.ErrExist", err)
	}

	assertFile(t, path, "one", 0o600)
}

func TestReplaceFile(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	path := filepath.Join(dir, "cert")

	for _, content := range []string{"one", "two"} {
		if err := certs.ReplaceFile(path, []byte(content), certs.PublicFile); err != nil {
			t.Fatal(err)
		}

		assertFile(t, path, content, 0o644)
	}

	// A name that cannot be replaced leaves no temporary file behind.
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}

	if err := certs.ReplaceFile(filepath.Join(dir, "taken"), nil, certs.PublicFile); err == nil {
		t.Error("replaced a directory")
	}

	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%d entries are left, %v, want 2", len(entries), err)
	}
}

func TestReadPrivateFile(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "key")
	if err := certs.CreateFile(path, []byte("secret"), certs.PrivateFile); err != nil {
		t.Fatal(err)
	}

	if data, err := certs.ReadPrivateFile(path); err != nil || string(data) != "secret" {
		t.Errorf("%q, %v", data, err)
	}

	for _, mode := range []fs.FileMode{0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}

		if _, err := certs.ReadPrivateFile(path); !errors.Is(err, certs.ErrPermissions) {
			t.Errorf("mode %04o: %v, want ErrPermissions", mode, err)
		}
	}

	if _, err := certs.ReadPrivateFile(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}

	if _, err := certs.ReadPrivateFile(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, want fs.ErrNotExist", err)
	}
}

func TestMakePrivateDir(t *testing.T) {
	t.Parallel()

	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := certs.MakePrivateDir(dir); err != nil {
		t.Fatal(err)
	}

	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("mode %v, %v, want 0700", info.Mode(), err)
	}

	for mode, want := range map[fs.FileMode]error{
		0o755: nil, 0o775: certs.ErrPermissions, 0o757: certs.ErrPermissions, 0o777: certs.ErrPermissions,
	} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}

		if err := certs.MakePrivateDir(dir); !errors.Is(err, want) {
			t.Errorf("mode %04o: %v, want %v", mode, err, want)
		}
	}
}

func assertFile(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()

	data, err := os.ReadFile(path)
	if err != nil || string(data) != content {
		t.Errorf("%s holds %q, %v, want %q", path, data, err, content)
	}

	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
		t.Errorf("%s: mode %v, %v, want %v", path, info.Mode(), err, mode)
	}
}
