//go:build !unix

package connectplugin

import "os"

// inheritedPipe returns nil: descriptors are not inherited by number here.
func inheritedPipe(int) *os.File { return nil }
