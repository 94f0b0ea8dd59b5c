package h2

import (
	"runtime"
	"sync"
	"time"
)

// Bounds of the heads of an answer: of what comes before it (1xx), of its own, and of its trailer together.
const (
	// MostFields is how many header fields an answer has at most. A request has as many, where its host takes 32 KiB
	// of them.
	MostFields = 1000

	manyFields = 64                    // beyond which they wait their turn
	fewFields  = 16                    // of one block, for which nobody waits
	fieldTime  = 50 * time.Microsecond // of one processor: what a field takes, and as much for others as they like to have
	fieldsFree = 16 * time.Millisecond // worth of fields that come at once

	fieldHolds = 128     // bytes that a field holds besides its text
	holdsFree  = 4 << 10 // bytes of one block for which nobody pays
)

// Pace is how fast servers of one owner may send header fields beyond those that answers usually have: each head waits
// until there was time for those before it. It is safe for concurrent use. The zero value is ready, a nil one has
// nobody wait.
type Pace struct {
	mu   sync.Mutex
	over time.Time // when there was time for all that came
}

// Holder is who pays for what is held of the answer to a request.
type Holder interface {
	// Hold is told of each head that is held until the request ends, or longer, and reports whether there is room for
	// it. It is called by the goroutine that reads the connection, under no lock, and must not block.
	Hold(bytes int) bool
}

// Rested reports whether a head would wait no longer than the first one did.
func (p *Pace) Rested(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.over.After(now.Add(-fieldsFree))
}

// take notes so many fields, and returns how long whoever sent them waits.
func (p *Pace) take(fields int, now time.Time) time.Duration {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if free := now.Add(-fieldsFree); p.over.Before(free) {
		p.over = free
	}
	p.over = p.over.Add(time.Duration(fields) * fieldTime / time.Duration(runtime.GOMAXPROCS(0)))
	return p.over.Sub(now)
}

// weigh has a header block that is larger than usual wait its turn, and has somebody pay for it. Nobody else of the
// connection waits for what came before it.
func (c *Conn) weigh() {
	b := &c.in
	if b.count <= fewFields && b.held <= holdsFree {
		return
	}
	many, holder := b.count, Holder(nil)
	c.mu.Lock()
	c.settleLocked()
	if s := c.streams[b.stream]; s != nil {
		many, holder = max(s.named+b.count-manyFields, 0)-max(s.named-manyFields, 0), s.holder
	}
	c.mu.Unlock()
	if many > 0 {
		c.pause(c.cfg.Pace.take(many, time.Now()))
	}
	if b.held > holdsFree && b.err == nil && !b.interim() && holder != nil && !holder.Hold(b.held) {
		b.err, b.fields = ErrHeld, nil
	}
}

// pause waits, unless the connection ends.
func (c *Conn) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.stop:
	}
}
