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
	// mostLeaving is how many connections stay so. More are closed at once.
	mostLeaving = 256
)

// farewell closes connections that were refused, in the order in which they were.
type farewell chan leaving

type leaving struct {
	conn net.Conn
	due  time.Time
}

// take closes a connection by and by.
func (f farewell) take(c net.Conn) {
	select {
	case f <- leaving{c, time.Now().Add(lingers)}:
	default:
		_ = c.Close()
	}
}

// run closes those that are due until the context ends, and then the rest. Nobody takes any more then.
func (f farewell) run(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case l := <-f:
			if left := time.Until(l.due); left > 0 {
				t.Reset(left)
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

func (f farewell) empty() {
	for {
		select {
		case l := <-f:
			_ = l.conn.Close()
		default:
			return
		}
	}
}
