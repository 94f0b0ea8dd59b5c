package lookup_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/lookup"
)

var found = []netip.Addr{netip.MustParseAddr("192.0.2.1")}

// names is a system of names that counts.
type names struct {
	asked atomic.Int32
	delay time.Duration
}

func (n *names) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	n.asked.Add(1)
	select {
	case <-time.After(n.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if strings.HasPrefix(host, "missing") {
		return nil, errors.New("no such host")
	}
	return found, nil
}

func resolver(n *names, most, each int) *lookup.Resolver {
	r := &lookup.Resolver{}
	r.Configure(lookup.Config{Most: most, Each: each, TTL: time.Minute, Timeout: 10 * time.Second, Lookup: n.lookup})
	return r
}

// An answer is known for its time, and that there is none for less.
func TestResolver_RemembersAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &names{}
		r := resolver(n, 1, 1)
		ask := func(host string, wantAsked int32) {
			t.Helper()
			addrs, err := r.Addresses(t.Context(), "a", host)
			if missing := strings.HasPrefix(host, "missing"); (err != nil) != missing || (len(addrs) == 1) == missing {
				t.Errorf("%s: %v, %v", host, addrs, err)
			}
			if got := n.asked.Load(); got != wantAsked {
				t.Errorf("%s: asked %d times, want %d", host, got, wantAsked)
			}
		}
		ask("host", 1)
		ask("HOST.", 1)
		ask("missing", 2)
		ask("missing", 2)
		ask("192.0.2.7", 2)
		time.Sleep(6 * time.Second)
		ask("host", 2)
		ask("missing", 3)
		time.Sleep(time.Minute)
		ask("host", 4)
		if _, err := r.Addresses(t.Context(), "a", strings.Repeat("a", 300)); !errors.Is(err, lookup.ErrName) || n.asked.Load() != 4 {
			t.Errorf("a name that cannot be: %v", err)
		}
	})
}

// One asker leaves look-ups to others, and who asks for the same waits for the same.
func TestResolver_BoundsLookups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &names{delay: time.Second}
		r := resolver(n, 3, 2)
		var wg sync.WaitGroup
		ask := func(asker, host string, want error) {
			wg.Go(func() {
				if _, err := r.Addresses(t.Context(), asker, host); !errors.Is(err, want) || want == nil && err != nil {
					t.Errorf("%s asks for %s: %v, want %v", asker, host, err, want)
				}
			})
			synctest.Wait()
		}
		ask("a", "1", nil)
		ask("a", "2", nil)
		ask("a", "3", lookup.ErrBusy)
		ask("a", "1", nil)
		ask("b", "4", nil)
		ask("c", "5", lookup.ErrBusy)
		ask("c", "2", nil)
		wg.Wait()
		ask("a", "6", nil)
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { _, _ = r.Addresses(ctx, "b", "7") })
		synctest.Wait()
		cancel() // whoever waits beside it still gets an answer
		ask("c", "7", nil)
		wg.Wait()
		if got := n.asked.Load(); got != 5 {
			t.Errorf("asked %d times, want 5", got)
		}
	})
}

// Names without end take bounded memory, and leave room for the next.
func TestResolver_ForgetsNames(t *testing.T) {
	t.Parallel()
	n := &names{}
	r := resolver(n, 1, 1)
	for i := range 5000 {
		if _, err := r.Addresses(t.Context(), "a", fmt.Sprintf("host-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.Len(); got > 4096 {
		t.Errorf("%d names are known", got)
	}
}
