package verify_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/verify"
)

func write(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpen(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const program = "\x7fELF and the rest"
	digest, wrong := verify.Digest(sha256.Sum256([]byte(program))), verify.Digest{1}
	signature := ed25519.Sign(private, digest[:])
	for _, tt := range []struct {
		name    string
		content string
		mode    os.FileMode
		want    verify.Want
		err     error
	}{
		{"anything", program, 0o700, verify.Want{}, nil},
		{"the digest", program, 0o700, verify.Want{Digest: &digest}, nil},
		{"signed", program, 0o700, verify.Want{Key: public, Signature: signature}, nil},
		{"both", program, 0o700, verify.Want{Digest: &digest, Key: public, Signature: signature}, nil},
		{"another digest", program, 0o700, verify.Want{Digest: &wrong}, verify.ErrChecksum},
		{"a byte more", program + "x", 0o700, verify.Want{Digest: &digest}, verify.ErrChecksum},
		{"another key", program, 0o700, verify.Want{Digest: &digest, Key: other, Signature: signature}, verify.ErrSignature},
		{"no signature", program, 0o700, verify.Want{Digest: &digest, Key: public}, verify.ErrSignature},
		{"signed, another digest", program, 0o700, verify.Want{Digest: &wrong, Key: public, Signature: signature}, verify.ErrChecksum},
		{"half a key", program, 0o700, verify.Want{Key: public[:16], Signature: signature}, verify.ErrSignature},
		{"a script", "#!/bin/sh\necho\n", 0o700, verify.Want{}, verify.ErrScript},
		{"not executable", program, 0o600, verify.Want{}, verify.ErrFile},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := write(t, tt.content, tt.mode)
			b, err := verify.Open(path, tt.want)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), path) {
					t.Errorf("%v does not name the file", err)
				}
				return
			}
			defer b.Close()
			if b.Digest != digest {
				t.Errorf("digest %v", b.Digest)
			}
		})
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	t.Parallel()
	if _, err := verify.Open(filepath.Join(t.TempDir(), "none"), verify.Want{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := verify.Open(t.TempDir(), verify.Want{}); !errors.Is(err, verify.ErrFile) {
		t.Errorf("a directory: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Open(pipe, verify.Want{}); !errors.Is(err, verify.ErrFile) {
		t.Errorf("a named pipe: %v", err)
	}
}

func TestImageDoesNotChange(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux executes an open file")
	}
	const program = "what was checked"
	path := write(t, program, 0o700)
	b, err := verify.Open(path, verify.Want{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := os.WriteFile(path, []byte("something else!!"), 0o700); err != nil {
		t.Fatal(err)
	}
	again, err := os.OpenFile("/proc/self/fd/"+itoa(b.Executable().Fd()), os.O_RDWR, 0)
	if err == nil {
		_, err = again.WriteAt([]byte("X"), 0)
		if cut := again.Truncate(1); cut == nil {
			t.Error("it can be cut")
		}
		_ = again.Close()
	}
	if err == nil {
		t.Error("it can be written")
	}
	got := make([]byte, 64)
	n, err := b.Executable().ReadAt(got, 0)
	if string(got[:n]) != program || !errors.Is(err, io.EOF) {
		t.Errorf("it holds %q, %v", got[:n], err)
	}
}

func TestParseDigest(t *testing.T) {
	t.Parallel()
	want := verify.Digest(sha256.Sum256(nil))
	for _, s := range []string{want.String(), "sha256:" + want.String(), strings.ToUpper(want.String())} {
		if got, err := verify.ParseDigest(s); got != want || err != nil {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "sha256:", want.String()[2:], want.String() + "00", "z" + want.String()[1:]} {
		if _, err := verify.ParseDigest(s); err == nil {
			t.Errorf("%q is a digest", s)
		}
	}
}

func itoa(fd uintptr) string {
	if fd < 10 {
		return string(rune('0' + fd))
	}
	return itoa(fd/10) + itoa(fd%10)
}
