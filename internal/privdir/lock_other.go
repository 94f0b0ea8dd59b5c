//go:build !linux && !darwin

package privdir

import (
	"io/fs"
	"os"
)

func claim(string, int) (*os.File, error) { return nil, ErrUnsupported }

func ours(fs.FileInfo) bool { return false }
