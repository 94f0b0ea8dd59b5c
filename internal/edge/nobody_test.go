package edge_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// Requests for which nobody pays are taken on as those of one peer, on however many connections and from however many addresses:
// more are there for nobody to end than a host can hold, and who is known waits behind them. Each address has its turn.
func TestAudit_ATK14_RequestsOfNobodyAreTakenOnTogether(t *testing.T) {
	t.Parallel()
	const conns, few = 50, 5
	most := 16 * int64(runtime.GOMAXPROCS(0))
	server, client := certificate(t)
	for name, addresses := range map[string]int{"of one address": 1, "of ten": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client, ahead: 16 << 10}
				b.serve(t, server)
				each := uint32(4 * most / conns * 10)
				for i := range conns {
					b.pourFrom(t, fmt.Sprint("127.0.0.", 10+i%addresses), max(each, 40))
				}
				synctest.Wait()
				if n := b.begun.Load(); n > most+conns {
					t.Errorf("%d requests begin at once, want %d and one for each connection at most", n, most)
				}
				before, begun := b.begun.Load(), time.Now()
				const later = 16 * time.Millisecond
				time.Sleep(later)
				synctest.Wait()
				if n := b.begun.Load() - before; n > 2*most {
					t.Errorf("%d more begin in %v, want %d", n, later, most)
				}
				b.pourFrom(t, sibling, few)
				for b.sibling.Load() < few && time.Since(begun) < time.Minute {
					time.Sleep(time.Millisecond)
					synctest.Wait()
				}
				pace := float64(runtime.GOMAXPROCS(0)) // in a millisecond
				fair := time.Duration(few*float64(addresses+1)/pace*float64(time.Millisecond)) + time.Duration(conns/pace)*time.Millisecond
				if took := time.Since(begun) - later; took > 2*fair {
					t.Errorf("%d requests of another address begin after %v, want about %v", few, took, fair)
				}
				close(b.release)
			})
		})
	}
}
