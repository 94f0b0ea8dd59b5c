package edge

import (
	"context"
	"net"
	"time"
)

const (
	// lingers is how long a connection that is refused stays open, untouched: its peer comes again when it is
	// closed, and at once would cost accepting another thousands of times a second.
	lingers = 200 * time.Millisecond
	// together is for how long those wait for one another that are due: to wake up for each costs more than to close it.
	together = 10 * time.Millisecond
	// mostLeaving is how many connections stay so. More are closed at once.
	mostLeaving = 256

	// atATime is after how many that were turned away an acceptor lets the next ones queue up in the system for as long as awaits:
	// to wake up for each of them takes longer than to accept it. It takes 16,000 a second so, and the queue is not full below that.
	atATime = 64
	awaits  = 4 * time.Millisecond
)

// Farewell closes connections that were refused, a little later and in the order in which they were. It is safe for concurrent use.
type Farewell struct {
	line chan leaving
	away int // so far, by who accepts
}

type leaving struct {
	conn net.Conn
	due  time.Time
}

// NewFarewell returns one that closes nothing until it is run.
func NewFarewell() *Farewell { return &Farewell{line: make(chan leaving, mostLeaving)} }

// Take closes a connection by and by. Nobody else touches it any more.
func (f *Farewell) Take(c net.Conn) {
	select {
	case f.line <- leaving{c, time.Now().Add(lingers)}:
	default:
		_ = c.Close()
	}
}

// TurnAway is Take for who accepts, which is one goroutine, and may wait for a moment.
func (f *Farewell) TurnAway(c net.Conn) {
	f.Take(c)
	if f.away++; f.away%atATime == 0 {
		<-time.After(awaits) // so short that nothing ends meanwhile that would have to wait for it
	}
}

// Run closes those that are due until the context ends, and then the rest.
func (f *Farewell) Run(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case l := <-f.line:
			if left := time.Until(l.due); left > 0 {
				t.Reset(left + together)
				select {
				case <-t.C:
				case <-ctx.Done():
				}
			}
			_ = l.conn.Close()
		case <-ctx.Done():
			f.empty()
			return
		}
	}
}

func (f *Farewell) empty() {
	for {
		select {
		case l := <-f.line:
			_ = l.conn.Close()
		default:
			return
		}
	}
}
