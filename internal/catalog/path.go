package catalog

import "strings"

// PathsOverlap reports whether a call below one path could be one below the other: the
// paths are the same, or one is below the other. A final slash does not matter. An
// empty path opens no path of its own, and overlaps none.
func PathsOverlap(a, b string) bool {
	if a == "" || b == "" {
		return false
	}

	a, b = strings.TrimRight(a, "/")+"/", strings.TrimRight(b, "/")+"/"

	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

// overlaps reports whether a runtime serves another type at the path of a registration.
func (rt *runtime) overlaps(reg *Registration) bool {
	for _, e := range rt.entries {
		if e.reg.Type != reg.Type && PathsOverlap(e.reg.Path, reg.Path) {
			return true
		}
	}

	return false
}
