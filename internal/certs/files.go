package certs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Permissions of the files and directories that hold certificates.
const (
	PrivateDir  fs.FileMode = 0o700
	PrivateFile fs.FileMode = 0o600
	PublicFile  fs.FileMode = 0o644

	groupRead    fs.FileMode = 0o040 // the bit by which a group reads a file
	othersAccess fs.FileMode = 0o077 // bits by which others than the owner reach a file
	othersWrite  fs.FileMode = 0o022 // bits by which others change it
)

// ErrPermissions is returned for a file or directory that others can reach.
var ErrPermissions = errors.New("permissions are too open")

// MakePrivateDir makes a directory that only its owner may enter. One that
// exists already is accepted unless others may write to it.
func MakePrivateDir(path string) error {
	if err := os.MkdirAll(path, PrivateDir); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}

	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}

	if checkedMode(info)&othersWrite != 0 {
		return fmt.Errorf("%w: %s has %04o, others may write to it: chmod 0700 it", ErrPermissions, path, info.Mode().Perm())
	}

	return nil
}

// CreateFile writes a file that must not exist yet, and leaves none behind if it fails. Where the file system has links
// whoever reads it sees nothing or all of it.
func CreateFile(path string, data []byte, mode fs.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}

	err = fill(file, data, mode)
	if err == nil {
		err = os.Link(file.Name(), path)
	}

	if removed := os.Remove(file.Name()); err == nil || errors.Is(err, fs.ErrExist) {
		if err = errors.Join(err, removed); err != nil {
			return fmt.Errorf("create file: %w", err)
		}

		return nil
	}

	return createInPlace(path, data, mode)
}

// createInPlace does so where there are no links.
func createInPlace(path string, data []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) //nolint:gosec // the path is the operator's
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}

	if err := fill(file, data, mode); err != nil {
		return errors.Join(err, os.Remove(path))
	}

	return nil
}

// ReplaceFile writes a file in one step: whoever reads it sees all of the old
// content or all of the new.
func ReplaceFile(path string, data []byte, mode fs.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("replace file: %w", err)
	}

	err = fill(file, data, mode)
	if err == nil {
		err = os.Rename(file.Name(), path)
	}

	if err != nil {
		return errors.Join(fmt.Errorf("replace file: %w", err), os.Remove(file.Name()))
	}

	return nil
}

// fill writes everything that file shall hold and closes it.
func fill(file *os.File, data []byte, mode fs.FileMode) error {
	err := file.Chmod(mode)
	if err == nil {
		_, err = file.Write(data)
	}

	if err == nil {
		err = file.Sync()
	}

	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file.Name(), err)
	}

	return nil
}

// ReadPrivateFile reads a file that only its owner may read or write, or one of another
// owner that beside that owner only a group may read that this process is in: a secret
// that is mounted into a container. On Windows, which has no such bits, the permissions
// are not checked.
func ReadPrivateFile(path string) ([]byte, error) {
	data, _, err := readFile(path, othersAccess)

	return data, err
}

// readFile reads a file and tells which one it was, refusing one that has any of
// the forbidden permissions. The answer is of the opened file, whatever the path
// names by now.
func readFile(path string, forbidden fs.FileMode) ([]byte, fs.FileInfo, error) {
	file, err := os.Open(path) //nolint:gosec // the path is the operator's
	if err != nil {
		return nil, nil, fmt.Errorf("read file: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read from

	info, err := file.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("read file: %w", err)
	}

	if info.IsDir() {
		return nil, nil, fmt.Errorf("read file: %s is a directory: a file has to be there; remove it", path)
	}

	if private(info)&forbidden != 0 {
		return nil, nil, fmt.Errorf("%w: %s has %04o, others may reach it: chmod 0600 it, or mount it with mode 0400; 0440 "+
			"is for a file of another owner, as a mounted secret is, whose group this process is in", ErrPermissions, path, info.Mode().Perm())
	}

	data, err := io.ReadAll(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read file: %w", err)
	}

	return data, info, nil
}

// private returns the permissions that are too many for a file that is this process's.
func private(info fs.FileInfo) fs.FileMode {
	return checkedMode(info) & reachable(info)
}

// checkedMode returns the permissions that mean anything on this system.
func checkedMode(info fs.FileInfo) fs.FileMode {
	if runtime.GOOS == "windows" {
		return 0
	}

	return info.Mode().Perm()
}
