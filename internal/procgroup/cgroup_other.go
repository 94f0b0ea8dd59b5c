//go:build !linux

package procgroup

import "fmt"

type cgroup struct{ dir string }

func newCgroup(string) (*cgroup, error) {
	return nil, fmt.Errorf("control group: %w", ErrUnsupported)
}

func (*cgroup) remove() {}
