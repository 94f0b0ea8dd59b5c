//go:build !linux

package verify

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

const noBlock = 0

// image is a copy in a directory that only its owner may enter. Whoever has that user's
// rights can still change it: this system cannot execute an open file.
type image struct{ dir, path string }

func newImage(r io.Reader) (image, error) {
	dir, err := os.MkdirTemp("", "connectplugin-")
	if err != nil {
		return image{}, fmt.Errorf("private copy: %w", err)
	}
	img := image{dir: dir, path: filepath.Join(dir, "plugin")}
	if runtime.GOOS == "windows" {
		img.path += ".exe"
	}
	if err := img.fill(r); err != nil {
		_ = os.RemoveAll(dir)
		return image{}, fmt.Errorf("private copy: %w", err)
	}
	return img, nil
}

func (i image) fill(r io.Reader) error {
	const mode = 0o500
	file, err := os.OpenFile(i.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err //nolint:wrapcheck // newImage wraps it
	}
	_, err = io.Copy(file, r)
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err //nolint:wrapcheck // newImage wraps it
}

// Executable returns nil: this system executes names, see Path.
func (b *Binary) Executable() *os.File { return nil }

// Path returns where the program is executed from.
func (b *Binary) Path() string { return b.image.path }

// Close removes the copy. It may be called again.
func (b *Binary) Close() { _ = os.RemoveAll(b.image.dir) }

func executable(info os.FileInfo) bool {
	return runtime.GOOS == "windows" || info.Mode()&0o111 != 0
}
