package procedures

import "sync/atomic"

// slots is how many names are found without a lock.
const slots = 64

// recent is a small table of names that were asked for last. It holds known names only, which
// are never forgotten, so what it has is true for good.
type recent [slots]atomic.Pointer[name]

// slot is where a name is looked for: by what is cheap to read and differs between procedures.
func (r *recent) slot(path string) *atomic.Pointer[name] {
	n := len(path)
	if n == 0 {
		return &r[0]
	}
	return &r[(n*31+int(path[n-1])*7+int(path[n/2]))%slots]
}

func (r *recent) has(group, path string) bool {
	n := r.slot(path).Load()
	return n != nil && n.path == path && n.group == group
}
