package edge

import (
	"net"
	"runtime"
	"time"
)

// longestTurn is how long a TLS handshake waits at most until those of its address let it
// compute: they may be asking somebody else, as callbacks of the configuration do.
const longestTurn = 50 * time.Millisecond

// turns lets the TLS handshakes of one address compute one after the other, on half of the
// processors, so that a burst of them leaves the rest to others.
type turns chan struct{}

func newTurns() turns { return make(turns, max(1, runtime.GOMAXPROCS(0)/2)) }

// audible is a connection as it was accepted. It notes when its peer was heard, and during the
// TLS handshake it waits for its turn with what it read: what follows costs processor time.
type audible struct {
	net.Conn

	// Of who reads.
	slot    *slot
	turns   turns // nil where nothing waits: before its address is known, and after the handshake
	working bool  // it has a turn
	answers int   // in the TLS handshake so far
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
	n, err := a.Conn.Write(p)
	if a.turns != nil && a.answers < mostAnswers {
		a.answers++
		a.slot.heard()
	}
	return n, err //nolint:wrapcheck // stands for what it wraps
}

// work waits for a turn.
func (a *audible) work() {
	if a.turns == nil {
		return
	}
	select {
	case a.turns <- struct{}{}:
		a.working = true
		return
	default:
	}
	t := time.NewTimer(longestTurn)
	defer t.Stop()
	select {
	case a.turns <- struct{}{}:
		a.working = true
	case <-t.C:
	case <-a.slot.listener.life.Done():
	}
}

// rest lets others have a turn.
func (a *audible) rest() {
	if a.working {
		a.working = false
		<-a.turns
	}
}
