//go:build !linux

package bootstrap

import (
	"context"
	"os"
)

// Released reports false: nothing says here that nobody reads a pipe any more, but writing to it.
func Released(context.Context, *os.File) bool { return false }
