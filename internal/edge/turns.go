package edge

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// longestTurn is how long a TLS handshake waits at most while none of its address gets a turn: those
// that have one may be asking somebody else, as callbacks of the configuration do.
const longestTurn = 50 * time.Millisecond

// turns lets the TLS handshakes of one address compute one after the other, on half of the
// processors, so that a burst of them leaves the rest to others.
type turns struct {
	taken chan struct{} // as many as there may be
	given atomic.Uint64
}

func newTurns() *turns { return &turns{taken: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))} }

// await waits for a turn, and reports whether it got one.
func (t *turns) await(life context.Context) bool {
	timer := time.NewTimer(longestTurn)
	defer timer.Stop()
	for given := t.given.Load(); ; {
		select {
		case t.taken <- struct{}{}:
			t.given.Add(1)
			return true
		case <-timer.C:
		case <-life.Done():
			return false
		}
		now := t.given.Load()
		if now == given {
			return false
		}
		given = now
		timer.Reset(longestTurn)
	}
}

// audible is a connection as it was accepted. It notes when its peer was heard, and during the
// TLS handshake it waits for its turn with what it read: what follows costs processor time.
type audible struct {
	net.Conn

	// Of who reads.
	slot    *slot
	turns   *turns // nil where nothing waits: before its address is known, and after the handshake
	working bool   // it has a turn
	answers int    // in the TLS handshake so far

	sending sending
}

// Read reads what the peer sent.
func (a *audible) Read(p []byte) (int, error) {
	a.rest()
	n, err := a.Conn.Read(p)
	if n > 0 {
		if !a.slot.listener.knocks() {
			a.slot.heard()
		}
		a.work()
	}
	return n, err //nolint:wrapcheck // stands for what it wraps
}

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

// work waits for a turn.
func (a *audible) work() {
	if a.turns == nil {
		return
	}
	a.working = a.turns.await(a.slot.listener.life)
}

// rest lets others have a turn.
func (a *audible) rest() {
	if a.working {
		a.working = false
		<-a.turns.taken
	}
}
