package tokenstore

import (
	"io"
	"sync"
	"sync/atomic"
)

// Store holds the identities and grants of one host. It is safe for concurrent use. Functions that it
// calls run without any lock held and may call it.
type Store struct {
	// Fixed at creation. The tables are read without lock and written under mu.
	rand       io.Reader
	clock      clock
	identities *table[Identity, *Identity]
	grants     *table[grant, *grant]
	host       *Identity     // owns the grants of the host itself, and is in no table
	dummy      *Identity     // verified where there is no identity
	dummyGrant *grant        // verified where there is no grant
	noGrace    graced        // compared where there is no previous token
	wake       chan struct{} // capacity one: the next deadline came closer
	issued     *issued       // has a lock of its own, which is taken under mu
	past       past          // as above

	config atomic.Pointer[Config] // with defaults, replaced by Configure

	mu               sync.Mutex
	sequence         uint64
	selves           tallies
	peers            tallies // of what nobody proved
	proven           tallies // of the others, to share their names
	identityExpiries deadlines[Identity, *Identity]
	grantExpiries    deadlines[grant, *grant]
	expired          map[string]*grant // whose revocation is awaited, nil until there is one
	subscribers      []*subscriber     // copied on write
}

// New returns an empty store. It starts nothing: the caller runs [Store.Run].
func New(config Config) *Store {
	config = config.withDefaults()
	s := &Store{
		rand:       config.Rand,
		clock:      newClock(config.Now),
		identities: newTable[Identity](),
		grants:     newTable[grant](),
		host:       new(Identity),
		dummy:      new(Identity),
		wake:       make(chan struct{}, 1),
		issued:     newIssued(),
		selves:     newTallies(),
		peers:      newTallies(),
		proven:     newTallies(),
	}
	s.Configure(config)
	s.host.state.Store(&state{expires: never})
	s.dummy.state.Store(new(state))
	s.dummyGrant = &grant{owner: s.dummy}
	return s
}

// Configure replaces the bounds and times of the store, for what is issued from now on. What lives stays,
// even where it is more than a new bound allows. Rand and Now stay as they were at creation.
func (s *Store) Configure(config Config) {
	config = config.withDefaults()
	s.config.Store(&config)
}

// Lookup returns the live identity with the runtime id. It proves nothing about who asks.
func (s *Store) Lookup(runtimeID string) (*Identity, bool) {
	identity := s.identities.get(runtimeID)
	if identity == nil || !identity.state.Load().good(s.clock.now()) {
		return nil, false
	}
	return identity, true
}

// Kin returns how many identities share bounds with one, itself among them: the instances of its self id, or where that
// is not proven the identities of its peer. It takes no lock, and the identity may have ended.
func (s *Store) Kin(id *Identity) int {
	of := s.selves
	if id.peer != nil && !id.proven {
		of = s.peers
	}
	return max(of.count(id.kin().name), 1)
}

// Each calls f for every live identity until it returns false. Identities that begin or end meanwhile
// may be among them or not.
func (s *Store) Each(f func(*Identity) bool) {
	now := s.clock.now()
	for identity := range s.identities.all() {
		if identity.state.Load().good(now) && !f(identity) {
			return
		}
	}
}

// Len returns how many identities count against the bounds: those that live, and those that expired
// since the last sweep.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identityExpiries.len()
}

// GrantLen returns how many grants there are: those that live, and those that expired since the last
// sweep.
func (s *Store) GrantLen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grantExpiries.len()
}
