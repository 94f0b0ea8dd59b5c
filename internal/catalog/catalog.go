// Package catalog knows what is offered, by whom and in what health, and tells
// those who watch.
//
// Every change of state goes through one function, transition. It
// applies the change, computes the state of each service type that it touched,
// numbers one event per type where watchers must see the change, and wakes the
// watchers of those types and nobody else. Reads are answered from indexes whose
// cost does not grow with the number of registrations.
//
// # What watchers are told
//
// Events of a type are numbered 1, 2, 3 … without gaps and kept in a bounded
// ring. An event is due when the state of the type changes, when the provider
// that a consumer should use changes, or when the set of routable providers does:
// one joins, leaves, is replaced, or moves between healthy and degraded. Setting
// a failing provider aside and taking it back is no event unless the provider to
// use changes. That provider is the first registered one among the healthy, or
// else among the degraded.
//
// # Numbers that survive
//
// A type without registrations and watchers leaves the catalogue. What its
// events were is remembered for a bounded number of such types
// ([Config].History), so that a consumer whose connection broke while the type
// was empty resumes where it was. When such a memory is given up, the catalogue
// steps to a new epoch, which types created from then on carry. So two numbers
// of one type with one epoch are always comparable, numbers never go back within
// an epoch, and a resumption after a forgotten past is recognised as one and
// answered with the current state. A type that never had an event leaves
// nothing behind at all.
//
// # Concurrency
//
// All methods are safe for concurrent use and none blocks, except
// [Watcher.Next]. Callbacks run outside the locks. What is handed in and out is
// copied; only the Metadata of a selected provider and of an event is shared,
// and read-only.
package catalog

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// The bounds that a zero in [Config] stands for.
const (
	DefaultMaxRegistrations     = 100_000
	DefaultMaxPerRuntime        = 256
	DefaultMaxPerType           = 10_000
	DefaultMaxWatches           = 100_000
	DefaultMaxWatchesPerRuntime = 256
	DefaultRingSize             = 64
	DefaultHistory              = 64
)

// What the catalogue refuses with.
var (
	// ErrConflict says that the type belongs to another self id.
	ErrConflict = errors.New("catalog: service type has another owner")
	// ErrLimit says that a bound of [Config] is reached.
	ErrLimit = errors.New("catalog: limit reached")
	// ErrLimitOfType and ErrLimitInAll say so of those of one type, and of all; others are of one runtime.
	ErrLimitOfType = fmt.Errorf("%w of the type", ErrLimit)
	// ErrLimitInAll is about all of them together.
	ErrLimitInAll = fmt.Errorf("%w in all", ErrLimit)
	// ErrLimitOfFleet is about those of one [Fleet].
	ErrLimitOfFleet = fmt.Errorf("%w of those that belong together", ErrLimit)
	// ErrDuplicate says that the registration id is in use.
	ErrDuplicate = errors.New("catalog: registration id in use")
	// ErrInvalid says that a registration lacks its id or its type.
	ErrInvalid = errors.New("catalog: registration without id or type")
	// ErrOverlap says that the runtime serves another type at, below or above the path.
	ErrOverlap = errors.New("catalog: path overlaps that of another type")
	// ErrNotFound says that there is no such thing, or that it is somebody else's.
	ErrNotFound = errors.New("catalog: not found")
	// ErrClosed says that the watch has ended or that the catalogue takes no watches any more.
	ErrClosed = errors.New("catalog: watch closed")
)

// Constraint says which versions a consumer accepts.
type Constraint = semrange.Constraint

// ParseConstraint reads the field min_version, see [semrange.ParseConstraint]:
// nothing is any version, a plain version is a minimum, and a constraint such as
// ">=1.2, <2" is taken as such.
func ParseConstraint(s string) (Constraint, error) { return semrange.ParseConstraint(s) }

// Config bounds a catalogue and connects it. Its zero value is usable.
type Config struct {
	// MaxRegistrations, MaxPerRuntime and MaxPerType bound registrations. Zero means the
	// default of that name, a negative number no bound.
	MaxRegistrations, MaxPerRuntime, MaxPerType int
	// MaxWatches and MaxWatchesPerRuntime bound open watches; the latter does not apply to
	// the host itself. Zero means the default, a negative number no bound.
	MaxWatches, MaxWatchesPerRuntime int
	// RingSize is how many events of a type are kept for slow and for returning watchers;
	// it applies to types that appear later. Zero or less means the default.
	RingSize int
	// History is how many types are remembered that nobody offers or watches any more.
	// Zero means the default, a negative number none.
	History int
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
	// AllowMultiple says whether a type may have providers of several self ids; nil means no.
	AllowMultiple func(serviceType string) bool
	// Observe is told of every change, after it happened and outside the locks, by the
	// goroutine that made it; nil means nobody is.
	Observe func(Change)
	// Vacated is told, after a change that took registrations out, what of the registrations that are
	// withheld may find room now, for [Catalog.Restore]. It is called as Observe is; nil means nobody is.
	Vacated func(concerns func(Registration) bool)
}

func (c Config) withDefaults() Config {
	c.MaxRegistrations = bound(c.MaxRegistrations, DefaultMaxRegistrations)
	c.MaxPerRuntime = bound(c.MaxPerRuntime, DefaultMaxPerRuntime)
	c.MaxPerType = bound(c.MaxPerType, DefaultMaxPerType)
	c.MaxWatches = bound(c.MaxWatches, DefaultMaxWatches)
	c.MaxWatchesPerRuntime = bound(c.MaxWatchesPerRuntime, DefaultMaxWatchesPerRuntime)
	c.History = bound(c.History, DefaultHistory)

	if c.RingSize <= 0 {
		c.RingSize = DefaultRingSize
	}

	if c.Now == nil {
		c.Now = time.Now
	}

	if c.AllowMultiple == nil {
		c.AllowMultiple = func(string) bool { return false }
	}

	if c.Observe == nil {
		c.Observe = func(Change) {}
	}

	if c.Vacated == nil {
		c.Vacated = func(func(Registration) bool) {}
	}

	return c
}

func bound(n, fallback int) int {
	if n == 0 {
		return fallback
	}

	return n
}

// exceeds reports whether n is over limit; a negative limit is none.
func exceeds(n, limit int) bool { return limit >= 0 && n > limit }

// Catalog holds registrations, health, endpoints and watches. Make it with
// [New]; see the package for its concurrency.
type Catalog struct {
	cfg  atomic.Pointer[Config]
	slow atomic.Uint64

	summoning sync.WaitGroup // of crowds of watchers; nothing is added once closed

	mu         sync.RWMutex
	services   map[string]*service
	releases   map[releaseKey]*release
	entries    map[string]*entry
	providers  map[providerKey]*entry
	runtimes   map[string]*runtime
	ledger     ledger
	trails     trails
	standbys   standbys
	withheld   standbys // taken out for now: offered to nobody, in nobody's way
	cramped    bool     // something that is withheld found no room
	departed   departed
	ended      departed // registrations, by their id
	strategies map[string]Strategy
	order      uint64
	watches    int
	closed     bool
	history    *history
}

type (
	releaseKey  struct{ serviceType, version string }
	providerKey struct{ serviceType, runtimeID string }
)

// New returns an empty catalogue.
func New(cfg Config) *Catalog {
	opened := make(trails)
	c := &Catalog{
		services:   make(map[string]*service),
		releases:   make(map[releaseKey]*release),
		entries:    make(map[string]*entry),
		providers:  make(map[providerKey]*entry),
		runtimes:   make(map[string]*runtime),
		ledger:     newLedger(),
		trails:     opened,
		standbys:   newStandbys(opened),
		withheld:   newStandbys(make(trails)), // of its own: nobody's path
		departed:   newDeparted(),
		ended:      newDeparted(),
		strategies: make(map[string]Strategy),
		history:    newHistory(),
	}
	c.standbys.counted = true
	c.Configure(cfg)

	return c
}

// Configure replaces the configuration. What exceeds a lower bound stays; new
// registrations and watches are held to it.
func (c *Catalog) Configure(cfg Config) {
	cfg = cfg.withDefaults()
	c.cfg.Store(&cfg)
}

// Stats counts what a catalogue holds.
type Stats struct {
	// Registrations and Types that somebody offers or watches.
	Registrations, Types int
	// Remembered are the types whose events are kept though nobody offers or watches them.
	Remembered int
	// Runtimes that have a registration, a health, an endpoint or a watch.
	Runtimes int
	// Watches that are open.
	Watches int
}

// Stats returns the present counts.
func (c *Catalog) Stats() Stats {
	c.mu.RLock()
	defer c.mu.RUnlock()

	return Stats{
		Registrations: len(c.entries),
		Types:         len(c.services),
		Remembered:    len(c.history.feeds),
		Runtimes:      len(c.runtimes),
		Watches:       c.watches,
	}
}

// serviceLocked returns the record of a type, a new one if there is none.
func (c *Catalog) serviceLocked(name string) *service {
	s := c.services[name]
	if s == nil {
		f := c.history.take(name)
		if f == nil {
			f = newFeed(name, c.history.epoch, c.cfg.Load().RingSize)
		}

		s = newService(name, f, c.strategies[name])
		c.services[name] = s
	}

	return s
}

// releaseServiceLocked lets go of a type that nobody offers or watches.
func (c *Catalog) releaseServiceLocked(s *service) {
	if s.roster.live > 0 || s.feed.watched() {
		return
	}

	delete(c.services, s.name)
	c.history.keep(s.feed, c.cfg.Load().History)
}

// runtimeLocked returns the record of a runtime, a new one if there is none.
func (c *Catalog) runtimeLocked(id string) *runtime {
	rt := c.runtimes[id]
	if rt == nil {
		rt = &runtime{id: id}
		c.runtimes[id] = rt
	}

	return rt
}

// releaseRuntimeLocked lets go of a runtime of which nothing is known any more.
func (c *Catalog) releaseRuntimeLocked(rt *runtime) {
	if rt.empty() {
		delete(c.runtimes, rt.id)
	}
}
