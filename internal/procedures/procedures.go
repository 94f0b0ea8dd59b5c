// Package procedures keeps the names of procedures that somebody answered, so that metrics
// have a name for those and for nothing else that callers ask for.
package procedures

import (
	"strings"
	"sync"
)

// Bounds of a set: names of one group, and in all, and bytes of a name.
const (
	MaxPerGroup = 64
	MaxTotal    = 4096
	MaxLength   = 256
)

type name struct{ group, path string }

// Set is a bounded set of names. The zero value is empty. It is safe for concurrent use.
type Set struct {
	recent recent

	mu     sync.RWMutex
	known  map[name]*name
	groups map[string]int // how many there are of each
}

// Name returns the path where it is known in the group, and empty text where it is not.
func (s *Set) Name(group, path string) string {
	if s.recent.has(group, path) {
		return path
	}
	s.mu.RLock()
	n := s.known[name{group, path}]
	s.mu.RUnlock()
	if n == nil {
		return ""
	}
	s.recent.slot(path).Store(n)
	return path
}

// Learn adds a path to a group, if there is room, and returns what Name says from then on. A path that
// could be no procedure's stays without a name: who answers everything would else name what callers make up.
func (s *Set) Learn(group, path string) string {
	if !plain(path) {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := name{group, path}
	if _, ok := s.known[n]; ok {
		return path
	}
	if len(s.known) >= MaxTotal || s.groups[group] >= MaxPerGroup {
		return ""
	}
	if s.known == nil {
		s.known, s.groups = map[name]*name{}, map[string]int{}
	}
	s.known[n] = &n
	s.groups[group]++
	return path
}

// plain reports whether a path is as those of procedures are: names of packages, services and methods.
func plain(path string) bool {
	return len(path) > 1 && len(path) <= MaxLength && path[0] == '/' &&
		!strings.ContainsFunc(path, func(r rune) bool { return !strings.ContainsRune(letters, r) })
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-"
