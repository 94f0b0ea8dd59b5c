package h2

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tlsrecords"
)

// Batch is a connection that can gather what is written to it, and counts the records of TLS that it reads. It goes
// below a TLS connection, which writes each record by itself.
type Batch struct {
	net.Conn

	records tlsrecords.Meter // of who reads

	mu   sync.Mutex
	held bool
	buf  []byte
}

// NewBatch returns a batch over conn that gathers nothing yet.
func NewBatch(conn net.Conn) *Batch { return &Batch{Conn: conn} }

// Hold makes the writes that follow wait for Release.
func (b *Batch) Hold() {
	b.mu.Lock()
	b.held = true
	b.mu.Unlock()
}

// Release writes what was gathered, ends the gathering and returns how many bytes
// were written.
func (b *Batch) Release() (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = false
	if len(b.buf) == 0 {
		return 0, nil
	}
	n, err := b.Conn.Write(b.buf) // under mu: it keeps records in order, and only writers wait
	if b.buf = b.buf[:0]; cap(b.buf) > keepBatch {
		b.buf = nil
	}
	if err != nil {
		return n, fmt.Errorf("write batch: %w", err)
	}
	return n, nil
}

// Shrink gives the memory back that is kept for the next batch, unless one is being
// written: it waits for nobody.
func (b *Batch) Shrink() {
	if !b.mu.TryLock() {
		return
	}
	defer b.mu.Unlock()
	if len(b.buf) == 0 {
		b.buf = nil
	}
}

// Read implements net.Conn. It fails where the peer sends more records than anything explains.
func (b *Batch) Read(p []byte) (int, error) {
	if what := b.records.Count(time.Now); what != "" {
		return 0, fmt.Errorf("%w: too many %s", errFlood, what)
	}
	n, err := b.Conn.Read(p)
	b.records.Find(p[:n])
	return n, err //nolint:wrapcheck // as below
}

// Write implements net.Conn.
func (b *Batch) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held {
		b.buf = append(b.buf, p...)
		return len(p), nil
	}
	return b.Conn.Write(p) //nolint:wrapcheck // crypto/tls looks at the error's own type
}
