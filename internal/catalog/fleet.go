package catalog

import "github.com/masegraye/connect-plugin-go/internal/seats"

// Few is how many registrations, and watches, each of a [Fleet] has at any rate.
const Few = 8

// Fleet counts what several runtimes hold together, as those of one plugin do: a quarter of what a [Config] has room
// for in all, or a few each where those are more, and never less than one of them may. Of a type each has one at most.
type Fleet struct {
	// Size is how many runtimes it has. It is called with locks held: it must wait for nothing, and call nothing of
	// the catalogue.
	Size func() int

	// Guarded by the catalogue's lock.
	offered, waiting int // registrations, and those that stand by
	watches          int
}

// offers notes n registrations more that are offered, waits such that stand by, and watched watches. A nil fleet is
// nobody's.
func (f *Fleet) offers(n int) {
	if f != nil {
		f.offered += n
	}
}

func (f *Fleet) waits(n int) {
	if f != nil {
		f.waiting += n
	}
}

func (f *Fleet) watched(n int) {
	if f != nil {
		f.watches += n
	}
}

// exceeds reports whether a fleet may not have n of something, of which there are so many in all and for each.
func (f *Fleet) exceeds(n, most, each int) bool {
	return most >= 0 && each >= 0 && n > seats.Together(seats.Bound{Most: most, Each: each}, Few, f.Size())
}

// mayWatch reports whether a fleet may have one watch more.
func (f *Fleet) mayWatch(cfg *Config) bool {
	return f == nil || !f.exceeds(f.watches+1, cfg.MaxWatches, cfg.MaxWatchesPerRuntime)
}

// mayRegister reports whether it may have one registration more, among those that are offered, of which so many are about to
// come, or those that wait.
func (f *Fleet) mayRegister(cfg *Config, waits bool, coming int) bool {
	if f == nil {
		return true
	}

	has := f.offered + coming
	if waits {
		has = f.waiting
	}

	return has <= 0 || !f.exceeds(has+1, cfg.MaxRegistrations, cfg.MaxPerRuntime)
}
