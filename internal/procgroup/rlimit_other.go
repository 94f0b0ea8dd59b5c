//go:build !linux

package procgroup

// Resource knows no resource limit: they cannot be set for another process here.
func Resource(string) (int, bool) { return 0, false }
