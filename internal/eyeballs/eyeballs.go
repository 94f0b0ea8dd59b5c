// Package eyeballs connects to a name with several addresses as RFC 8305 says, so that one which
// swallows everything costs a fraction of a second.
package eyeballs

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// attemptDelay is how long an address may take before the next one is tried
// beside it (RFC 8305, section 5).
const attemptDelay = 250 * time.Millisecond

// Alternate orders addresses so that the families take turns, in their order
// otherwise, the family of the first one first (RFC 8305, section 4).
func Alternate(addrs []netip.AddrPort) []netip.AddrPort {
	var first, second []netip.AddrPort
	for _, addr := range addrs {
		if addr.Addr().Is4() == addrs[0].Addr().Is4() {
			first = append(first, addr)
		} else {
			second = append(second, addr)
		}
	}
	out := make([]netip.AddrPort, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}

// arrival is what came of one address.
type arrival[C any] struct {
	conn C
	err  error
}

// Race tries addresses one after the other, without waiting for one that takes
// its time, and returns the first connection. The others are dropped, and nothing of
// them is left when it returns. The error joins those of all.
func Race[C any](
	ctx context.Context, addrs []netip.AddrPort, try func(context.Context, netip.AddrPort) (C, error), drop func(C),
) (C, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	arrivals := make(chan arrival[C])
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []error
	begun, running := 0, 0
	for begun < len(addrs) || running > 0 {
		select {
		case <-next.C:
			if begun < len(addrs) {
				addr := addrs[begun]
				begun++
				running++
				go func() {
					conn, err := try(ctx, addr)
					arrivals <- arrival[C]{conn, err}
				}()
				next.Reset(attemptDelay)
			}
		case a := <-arrivals:
			if running--; a.err == nil {
				cancel()
				dropAll(arrivals, running, drop)
				return a.conn, nil
			}
			errs = append(errs, a.err)
			next.Reset(0)
		}
	}
	var none C
	return none, errors.Join(errs...)
}

// dropAll waits for the attempts that are left.
func dropAll[C any](arrivals <-chan arrival[C], running int, drop func(C)) {
	for range running {
		if a := <-arrivals; a.err == nil {
			drop(a.conn)
		}
	}
}
