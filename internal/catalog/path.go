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

// trail is what a plugin opens below a path.
type trail struct{ serviceType, path string }

// trails are those of each plugin, by self id, and how many registrations each has, whether
// they serve or stand by. They are guarded by the catalogue's lock.
type trails map[string]map[trail]int

func (ts trails) add(reg *Registration) {
	of := ts[reg.SelfID]
	if of == nil {
		of = make(map[trail]int)
		ts[reg.SelfID] = of
	}

	of[trail{reg.Type, reg.Path}]++
}

func (ts trails) remove(reg *Registration) {
	of, t := ts[reg.SelfID], trail{reg.Type, reg.Path}
	if of[t]--; of[t] > 0 {
		return
	}

	delete(of, t)

	if len(of) == 0 {
		delete(ts, reg.SelfID)
	}
}

// OpenedByOther reports whether a path is at or below one that another type of the same
// plugin registered, whichever of its runtimes did, also where that type stands by.
func (c *Catalog) OpenedByOther(selfID, serviceType, path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()

	for t := range c.trails[selfID] {
		base := strings.TrimRight(t.path, "/")
		if t.serviceType != serviceType && base != "" && strings.HasPrefix(path+"/", base+"/") {
			return true
		}
	}

	return false
}
