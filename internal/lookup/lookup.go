// Package lookup looks up names that others state: so many at a time, of each of them and in
// all, and what was found, or was not, is known for a while.
package lookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/fullest"
)

var (
	// ErrBusy says that as much is looked up as may be.
	ErrBusy = errors.New("too many names are being looked up")
	// ErrAllBusy says so where that is in all, and not for one asker.
	ErrAllBusy = fmt.Errorf("%w in all", ErrBusy)
	// ErrName says that a text is no name of a host.
	ErrName = errors.New("is no name of a host")
)

const (
	// maxNameLen is the longest name in DNS (RFC 1035, section 2.3.4), with its final dot.
	maxNameLen = 254
	// maxKept bounds what is known.
	maxKept = 4096
	// maxAddresses bounds what is kept of one answer.
	maxAddresses = 64
	// missTTL is how long it is known that a name was not found.
	missTTL = 5 * time.Second
)

// Config says what a [Resolver] may do.
type Config struct {
	// Most bounds the look-ups at a time, Each those for one asker.
	Most, Each int
	// TTL is how long an answer is known. That there was none is known for 5 s at most.
	TTL time.Duration
	// Timeout bounds one look-up.
	Timeout time.Duration
	// Lookup asks; nil means [net.DefaultResolver].
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Resolver looks names up. The zero value may do nothing before [Resolver.Configure]. It is
// safe for concurrent use.
type Resolver struct {
	mu      sync.Mutex
	cfg     Config
	running int
	of      map[string]int // running, by asker
	known   map[string]*answer
}

// answer is what is known of a name.
type answer struct {
	done chan struct{} // closed when the rest is set
	// Set before done is closed.
	addrs []netip.Addr
	err   error
	until time.Time
}

func (a *answer) isThere() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// Configure sets what the resolver may do from now on.
func (r *Resolver) Configure(cfg Config) {
	if cfg.Lookup == nil {
		cfg.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cfg = cfg
}

// Addresses returns the addresses of a host, which an asker stated. Whoever asks for a name
// that is being looked up waits for that. It fails with [ErrBusy] where as much is looked
// up as may be, in all or for the asker.
func (r *Resolver) Addresses(ctx context.Context, asker, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "" || len(host) > maxNameLen {
		return nil, ErrName
	}
	if name == "localhost" { // the system's table of hosts has it without the final dot
		host = name
	}
	a, mine, err := r.begin(asker, name)
	if err != nil {
		return nil, err
	}
	if mine {
		r.ask(ctx, asker, host, a)
	}
	select {
	case <-a.done:
		return a.addrs, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a look-up: %w", ctx.Err())
	}
}

// Len returns how many names are known.
func (r *Resolver) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.known)
}

// Running returns how many names are being looked up, and for whom most of them.
func (r *Resolver) Running() (all int, asker string, most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	asker, most = fullest.Count(r.of)
	return r.running, asker, most
}

// begin returns what is known of a name, or what will be; mine reports that the caller has to
// ask for it.
func (r *Resolver) begin(asker, name string) (a *answer, mine bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a = r.known[name]; a != nil && (!a.isThere() || time.Now().Before(a.until)) {
		return a, false, nil
	}
	switch {
	case r.of[asker] >= r.cfg.Each:
		return nil, false, ErrBusy
	case r.running >= r.cfg.Most:
		return nil, false, ErrAllBusy
	}
	if r.known == nil {
		r.known, r.of = map[string]*answer{}, map[string]int{}
	}
	r.makeRoomLocked()
	r.running++
	r.of[asker]++
	a = &answer{done: make(chan struct{})}
	r.known[name] = a
	return a, true, nil
}

// makeRoomLocked forgets one name where as many are known as may be. What is being looked up
// stays: of that there is less.
func (r *Resolver) makeRoomLocked() {
	if len(r.known) < maxKept {
		return
	}
	for name, a := range r.known {
		if a.isThere() {
			delete(r.known, name)
			return
		}
	}
}

// ask looks a name up, though its asker may be gone meanwhile: others may wait for it.
func (r *Resolver) ask(ctx context.Context, asker, host string, a *answer) {
	r.mu.Lock()
	cfg := r.cfg
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Timeout)
	defer cancel()
	a.addrs, a.err = cfg.Lookup(ctx, host)
	a.addrs = a.addrs[:min(len(a.addrs), maxAddresses)]
	ttl := cfg.TTL
	if a.err != nil {
		ttl = min(ttl, missTTL)
	}
	a.until = time.Now().Add(ttl)
	r.mu.Lock()
	defer r.mu.Unlock()
	close(a.done)
	r.running--
	if r.of[asker]--; r.of[asker] == 0 {
		delete(r.of, asker)
	}
}
