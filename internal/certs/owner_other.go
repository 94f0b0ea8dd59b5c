//go:build !unix

package certs

import "io/fs"

// reachable returns the permissions by which others reach a file.
func reachable(info fs.FileInfo) fs.FileMode { return info.Mode().Perm() }
