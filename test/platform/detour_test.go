//go:build !linux

package platform_test

import "errors"

func detour(string) error { return errors.ErrUnsupported }
