//go:build !unix

package bootstrap

import "os"

// InheritedPipe returns nil: descriptors are not inherited by number here.
func InheritedPipe(int) *os.File { return nil }
