//go:build unix

package certs

import (
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// reachable returns the permissions by which others than this process's user, or the
// groups that it is in, reach a file. A secret that is mounted into a container belongs
// to another user and is readable by a group that the process is in: so it was given to
// this process, and the group may read it.
func reachable(info fs.FileInfo) fs.FileMode {
	mode := info.Mode().Perm()

	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == os.Geteuid() {
		return mode
	}

	if inGroup(int(stat.Gid)) {
		mode &^= groupRead
	}

	return mode
}

// inGroup reports whether the process is in a group.
func inGroup(gid int) bool {
	if gid == os.Getegid() {
		return true
	}

	groups, err := os.Getgroups()

	return err == nil && slices.Contains(groups, gid)
}
