// Package launches knows which launches of plugins are running, whom each one is, and who is
// barred. A launch proves itself with the certificate that was made for it alone.
package launches

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// Book holds the launches that are running, by the identity in their certificates. The zero
// value is empty and ready; it is safe for concurrent use.
type Book struct {
	mu     sync.RWMutex
	all    map[string]*Launch
	barred map[string]struct{}
}

// Open enters a launch. Close it when it has ended.
func (b *Book) Open(l *Launch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[string]*Launch{}
	}
	b.all[l.Identity] = l
}

// Close forgets a launch.
func (b *Book) Close(l *Launch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all[l.Identity] == l {
		delete(b.all, l.Identity)
	}
}

// Find returns the launch that a certificate identity belongs to, nil for none.
func (b *Book) Find(identity string) *Launch {
	if identity == "" {
		return nil
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.all[identity]
}

// Bar refuses a self id from now on.
func (b *Book) Bar(selfID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.barred == nil {
		b.barred = map[string]struct{}{}
	}
	b.barred[selfID] = struct{}{}
}

// Unbar ends what Bar began and reports whether the self id was barred.
func (b *Book) Unbar(selfID string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, was := b.barred[selfID]
	delete(b.barred, selfID)
	return was
}

// UnbarAll ends what Bar began, for everybody.
func (b *Book) UnbarAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.barred = nil
}

// AllBarred returns the self ids that are refused, sorted.
func (b *Book) AllBarred() []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return slices.Sorted(maps.Keys(b.barred))
}

// Barred reports whether a self id is refused.
func (b *Book) Barred(selfID string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	_, barred := b.barred[selfID]
	return barred
}

// New makes a launch. identity may be empty: that of a plugin which the host did not start
// but adopted.
func New(identity, selfID string, provides []string) *Launch {
	return &Launch{Identity: identity, SelfID: selfID, Provides: provides, wake: make(chan struct{}, 1)}
}

// Launch is one launch of a plugin. Make it with New; it is safe for concurrent use.
type Launch struct {
	// Fixed at creation.
	Identity string   // in its certificate
	SelfID   string   // whom it was launched as
	Provides []string // the service types that it was launched for; empty for whatever it declares
	// At is where the host has the plugin listen: a host and a port, or AtSocket. Empty leaves
	// that to the plugin. Set it before the launch is known to anybody.
	At string
	// OnEnrolled is told of each identity that the launch gets, before that does anything. It
	// is called without a lock. Set it before the launch is known to anybody; nil for nothing.
	OnEnrolled func(*tokenstore.Identity)

	wake chan struct{} // capacity one: something is new

	mu      sync.Mutex
	current *tokenstore.Identity
	refused string
	holding bool
	held    map[string]catalog.Registration // by type
}

// AtSocket says that a plugin listens on a Unix socket, which no URL names.
const AtSocket = "a Unix socket"

// Elsewhere is an error where a plugin says that it is reached at a URL, and the host had it
// listen elsewhere.
func (l *Launch) Elsewhere(baseURL string) error {
	if u, err := url.Parse(baseURL); l.At == "" || err == nil && u.Host == l.At {
		return nil
	}
	return fmt.Errorf("it says that it is at %q, and the host launched it to listen on %s", baseURL, l.At)
}

// Wake returns a channel that gets a value when something is new: what it was is read with
// the other methods.
func (l *Launch) Wake() <-chan struct{} { return l.wake }

// Poke says that something is new.
func (l *Launch) Poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Enrolled notes the identity that the launch has from now on and returns the one before,
// nil for none: a launch is one instance.
func (l *Launch) Enrolled(id *tokenstore.Identity) (before *tokenstore.Identity) {
	l.mu.Lock()
	before, l.current = l.current, id
	l.mu.Unlock()
	if l.OnEnrolled != nil {
		l.OnEnrolled(id)
	}
	l.Poke()
	return before
}

// Current returns the identity of the launch, nil before it enrolled.
func (l *Launch) Current() *tokenstore.Identity {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// Refuse notes why the host refused the launch.
func (l *Launch) Refuse(reason string) {
	l.mu.Lock()
	l.refused = reason
	l.mu.Unlock()
	l.Poke()
}

// Refused returns why the host refused the launch last, empty if it did not.
func (l *Launch) Refused() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// Hold keeps the launch's registrations back until Release.
func (l *Launch) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding, l.held = true, map[string]catalog.Registration{}
}

// Keep keeps a registration back and reports whether it did.
func (l *Launch) Keep(reg catalog.Registration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holding {
		l.held[reg.Type] = reg
	}
	return l.holding
}

// Held returns the service types that are kept back, sorted.
func (l *Launch) Held() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.held))
}

// Offers reports whether something that is kept back, of a type, will do.
func (l *Launch) Offers(serviceType string, will func(version string) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	reg, ok := l.held[serviceType]
	return ok && will(reg.Version)
}

// Release hands over what was kept back, and ends the hold.
func (l *Launch) Release() []catalog.Registration {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Collect(maps.Values(l.held))
	l.holding, l.held = false, nil
	return out
}
