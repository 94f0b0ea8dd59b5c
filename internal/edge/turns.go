package edge

import (
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tlsrecords"
	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// newTurns returns those of one address, whose TLS handshakes compute on half of the processors, so
// that a burst of them leaves the rest to others.
func newTurns() *turns.Turns { return turns.New(runtime.GOMAXPROCS(0) / 2) }

// audible is a connection as it was accepted. It notes when its peer was heard, until TLS is agreed on: after that
// frames alone, such as PINGs, are no reason to keep a place. During the TLS handshake it waits for its turn with
// what it read: what follows costs processor time.
type audible struct {
	net.Conn

	// Of who reads.
	slot    *slot
	turns   *turns.Turns    // of its address; nil where nothing waits: before that is known, and after the handshake
	working [3]*turns.Turns // of which it has one; nil for none
	began   time.Time       // to work, at its turn
	answers int             // in the TLS handshake so far
	reads   int             // in it
	limit   *limit          // of the time of the TLS handshake
	agreed  bool            // on TLS
	metered *Conn           // whose records of TLS are counted; nil for none, and before TLS is agreed on
	records tlsrecords.Finder

	computed atomic.Bool // in the TLS handshake

	sending sending
}

// Read reads what the peer sent.
func (a *audible) Read(p []byte) (int, error) {
	a.rest()
	a.dawdle()
	if a.metered != nil && !a.metered.count(&a.records) {
		return 0, ErrCutOff
	}
	n, err := a.Conn.Read(p[:a.most(len(p))])
	if n > 0 {
		if a.slot.listener.cfg.TLS != nil {
			a.records.Find(p[:n])
		}
		if !a.agreed && !a.slot.listener.knocks() {
			a.slot.heard()
		}
		a.work()
	}
	return n, err //nolint:wrapcheck // stands for what it wraps
}

// What a TLS handshake comes in: a few reads, and where it comes in many, the rest is waited for, so that it is read in fewer.
const (
	usualReads = 64
	dawdles    = 250 * time.Millisecond
)

// mostAnswers is how many answers a TLS handshake has at most: to a second ClientHello, too.
const mostAnswers = 2

// Write writes. An answer in the TLS handshake says that the peer has sent what it had to, however
// slowly it came, and gives it time for the next: whoever is still silent makes room before it.
func (a *audible) Write(p []byte) (int, error) {
	n, err := a.sending.write(a.Conn, p)
	if a.turns != nil && a.answers < mostAnswers {
		a.answers++
		a.slot.heard()
	}
	return n, err
}

// beginsWith is how much is read at once where a record of TLS begins, on a connection for which nobody pays.
const beginsWith = 4 << 10

// most is how much is read at once: where nobody pays no more than to the end of a record. TLS keeps as much room as it ever needed,
// and for the next record behind the rest of a long one it needs twice as much.
func (a *audible) most(n int) int {
	if a.metered == nil || a.metered.account.Load() != nil {
		return n
	}
	if rest := a.records.Rest(); rest > 0 {
		return min(n, rest)
	}
	return min(n, beginsWith)
}

// dawdle waits before the next read of a TLS handshake that comes in pieces.
func (a *audible) dawdle() {
	if a.agreed || a.slot.listener.cfg.TLS == nil {
		return
	}
	if a.reads++; a.reads <= usualReads {
		return
	}
	t := time.NewTimer(dawdles)
	defer t.Stop()
	select {
	case <-t.C:
	case <-a.slot.listener.life.Done():
	}
}

// work waits for a turn among those of its address, then among those in doubt where it is one, and then among all.
func (a *audible) work() {
	if a.turns == nil {
		return
	}
	l := a.slot.listener
	a.limit.pause()
	defer a.limit.resume()
	a.await(0, a.turns)
	a.await(1, a.slot.inDoubt(time.Now()))
	a.await(2, l.cfg.Turns.Of(a.answers))
	a.computed.Store(true)
	a.began = time.Now()
}

// await waits for one of the turns, nil for none.
func (a *audible) await(i int, of *turns.Turns) {
	if of != nil && of.Await(a.slot.listener.life) {
		a.working[i] = of
	}
}

// longestRest bounds how long nobody of an address has a turn after one.
const longestRest = 5 * time.Millisecond

// rest lets others have a turn, those of its address and those in doubt when these have rested.
func (a *audible) rest() {
	for i, t := range a.working {
		if t == nil {
			continue
		}
		a.working[i] = nil
		if t == a.turns || t == a.slot.listener.doubted {
			now := time.Now()
			time.AfterFunc(a.slot.rests(now.Sub(a.began), t, now), t.Give)
			continue
		}
		t.Give()
	}
}
