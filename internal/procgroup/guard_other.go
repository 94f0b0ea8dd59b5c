//go:build !linux && !darwin

package procgroup

import "os"

func startGuard([]*os.File) (*os.Process, error) { return nil, ErrUnsupported }
