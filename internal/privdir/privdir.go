// Package privdir keeps directories that one user alone may enter, for sockets, and takes
// away those that a process left behind which was killed.
package privdir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

const (
	prefix    = "connectplugin-" // of every root
	lockName  = "lock"
	shared    = "own" // of the files of this process's user
	nameLen   = 16    // of a file, 80 bits
	ownerOnly = 0o700
	passable  = 0o711 // others may go through to what is theirs, and list nothing
	maxBase   = 48    // so that the address of a socket below it has room for its name
	attempts  = 3     // whoever sweeps may have taken a new root for an old one
)

// ErrUnsupported says that this system has no such directories.
var ErrUnsupported = errors.New("private directories are not supported on this system")

// errTaken says that somebody took the new root away before it was locked.
var errTaken = errors.New("the new directory is gone")

// Root holds the directories of one process. The zero value is empty and ready: the first
// directory makes the root, after it took away the roots of processes that are gone. It is
// safe for concurrent use. End it with Close.
type Root struct {
	opening sync.Mutex // held while a root is made or removed; guards nothing

	mu   sync.Mutex
	path string // empty while there is none
	lock *os.File
}

// Owner is the user that a directory belongs to.
type Owner struct{ UID, GID int }

// Make makes a directory and returns its path. Nil means that it belongs to this process's
// user. Remove it with os.RemoveAll, or all of them with Close.
func (r *Root) Make(owner *Owner) (dir string, err error) {
	err = r.within(func(root string) (err error) {
		if dir, err = os.MkdirTemp(root, ""); err == nil && owner != nil {
			err = os.Chown(dir, owner.UID, owner.GID)
		}
		return err //nolint:wrapcheck // done below
	})
	if err != nil {
		return "", fmt.Errorf("private directory: %w", err)
	}
	return dir, nil
}

// File returns a path that nobody can guess, so that no process of the same user is there first,
// in a directory which belongs to this process's user and is that of all such paths: a directory
// for each protects one process of a user from another no better, and to remove it waits for the
// disk where a file system tells the disk what it frees (ext4 with discard). Nothing is there
// yet; remove with os.Remove what is, or all of them with Close.
func (r *Root) File() (path string, err error) {
	err = r.within(func(root string) error {
		dir := filepath.Join(root, shared)
		path = filepath.Join(dir, rand.Text()[:nameLen])
		if err := os.Mkdir(dir, ownerOnly); !errors.Is(err, fs.ErrExist) {
			return err //nolint:wrapcheck // done below
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("private directory: %w", err)
	}
	return path, nil
}

// Close removes every directory. Another Make begins anew.
func (r *Root) Close() {
	r.opening.Lock()
	defer r.opening.Unlock()
	path, lock := r.swap("", nil)
	if path == "" {
		return
	}
	_ = os.RemoveAll(path) // before it is unlocked, so that nobody else does it at the same time
	_ = lock.Close()
}

// within makes something in the root, and in another one where somebody took that away, as what clears directories for
// temporary files does after some days: its name may be another user's by then.
func (r *Root) within(do func(root string) error) error {
	for range attempts {
		root, err := r.open()
		if err != nil {
			return err
		}
		if stands(root) {
			if err = do(root); !errors.Is(err, fs.ErrNotExist) || stands(root) {
				return err
			}
		}
		r.forget(root)
	}
	return errTaken
}

// stands reports whether a root is there, and this user's alone to change.
func stands(root string) bool {
	info, err := os.Lstat(root)
	return err == nil && info.IsDir() && ours(info) && info.Mode().Perm()&^passable == 0
}

// forget forgets a root that was taken away.
func (r *Root) forget(root string) {
	r.opening.Lock()
	defer r.opening.Unlock()
	r.mu.Lock()
	mine := r.path == root
	r.mu.Unlock()
	if mine {
		_, lock := r.swap("", nil)
		_ = lock.Close()
	}
}

// open returns the path of the root, and makes it where there is none.
func (r *Root) open() (string, error) {
	r.opening.Lock()
	defer r.opening.Unlock()
	r.mu.Lock()
	path := r.path
	r.mu.Unlock()
	if path != "" {
		return path, nil
	}
	base := base()
	sweep(base)
	for range attempts {
		path, lock, err := newRoot(base)
		if errors.Is(err, errTaken) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("%w; sockets are made in the directory for temporary files, %s: have it there, and let this process "+
				"write to it, or set TMPDIR to another one", err, base)
		}
		r.swap(path, lock)
		return path, nil
	}
	return "", errTaken
}

func (r *Root) swap(path string, lock *os.File) (oldPath string, oldLock *os.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldPath, oldLock = r.path, r.lock
	r.path, r.lock = path, lock
	return oldPath, oldLock
}

// base is where roots are: the system's directory for temporary files, unless its name is so
// long that no socket below it could have an address. A process that was started elsewhere finds it, too.
func base() string {
	if dir, err := filepath.Abs(os.TempDir()); err == nil && len(dir) <= maxBase {
		return dir
	}
	return "/tmp"
}

// newRoot makes a root and locks it, which says that its process lives.
func newRoot(base string) (path string, lock *os.File, err error) {
	if path, err = os.MkdirTemp(base, prefix); err != nil {
		return "", nil, err //nolint:wrapcheck // Make does
	}
	if lock, err = claim(filepath.Join(path, lockName), os.O_CREATE|os.O_EXCL); err == nil {
		err = os.Chmod(path, passable) // what is in it is for its owner alone
	}
	if err != nil {
		_ = os.RemoveAll(path)
		if lock != nil {
			_ = lock.Close()
		}
		return "", nil, err //nolint:wrapcheck // Make does
	}
	return path, lock, nil
}

// sweep removes the roots of this user whose processes are gone.
func sweep(base string) {
	roots, err := filepath.Glob(filepath.Join(base, prefix+"*"))
	if err != nil {
		return
	}
	for _, path := range roots {
		if info, err := os.Lstat(path); err != nil || !info.IsDir() || !ours(info) {
			continue
		}
		lock, err := claim(filepath.Join(path, lockName), 0)
		if err != nil {
			continue // its process lives, or is just making it
		}
		_ = os.RemoveAll(path)
		_ = lock.Close()
	}
}
