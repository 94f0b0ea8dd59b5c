package policy

import (
	"maps"
	"slices"
)

// Any in a list of names stands for every name.
const Any = "*"

// Set is a set of names, perhaps of all there are. The zero value is empty. It is
// immutable.
type Set struct {
	all   bool
	names map[string]struct{}
}

// NewSet makes the set of a list, in which [Any] is every name.
func NewSet(names []string) Set {
	s := Set{names: make(map[string]struct{}, len(names))}
	for _, n := range names {
		if n == Any {
			s.all = true
			continue
		}
		s.names[n] = struct{}{}
	}
	return s
}

// Everything is the set of all names.
func Everything() Set { return Set{all: true} }

// Has reports whether a name is in the set.
func (s Set) Has(name string) bool {
	if s.all {
		return true
	}
	_, ok := s.names[name]
	return ok
}

// Names reports whether the set was made of a list that has the name itself, and not only
// [Any].
func (s Set) Names(name string) bool {
	_, ok := s.names[name]
	return ok
}

// NamesAny reports whether the set was made of a list that names anything but
// [Any].
func (s Set) NamesAny() bool { return len(s.names) > 0 }

// List returns the names in order, [Any] alone where it is all of them.
func (s Set) List() []string {
	if s.all {
		return []string{Any}
	}
	return slices.Sorted(maps.Keys(s.names))
}

// Intersect lists the names that are in both sets, as [Set.List] does.
func (s Set) Intersect(other Set) []string {
	if s.all {
		return other.List()
	}
	return slices.DeleteFunc(s.List(), func(n string) bool { return !other.Has(n) })
}
