// Package replay keeps the body of an HTTP request so that the request can be made
// once more where its server did nothing with it.
package replay

import (
	"errors"
	"io"
	"sync"
)

// Kept is how much of a body that comes piece by piece is kept for another attempt.
const Kept = 64 << 10

// errEnded says that an attempt is over and gets no more of the body.
var errEnded = errors.New("replay: the attempt ended")

// Body is a request body and its attempts, of which one is made at a time. A body that
// can be opened again is replayed whole. Of any other the first [Kept] bytes are kept:
// it can be replayed until an attempt took more.
type Body struct {
	// Fixed at creation.
	source io.ReadCloser // nil: there is no body
	reopen func() (io.ReadCloser, error)
	turn   chan struct{} // capacity one: full while somebody reads from source

	mu      sync.Mutex
	kept    []byte
	settled bool  // nothing is kept any more
	over    bool  // more was taken than is kept
	failure error // how source ended
	current *attempt
}

// New returns the body of a request: its Body, and its GetBody if it has one.
func New(source io.ReadCloser, reopen func() (io.ReadCloser, error)) *Body {
	return &Body{source: source, reopen: reopen, turn: make(chan struct{}, 1)}
}

// Attempt ends the attempt before and returns the body for the next one, nil where
// there is none. It fails where the body cannot be had again.
func (b *Body) Attempt() (io.ReadCloser, error) {
	if b.source == nil {
		return nil, nil //nolint:nilnil // a request without a body
	}

	b.mu.Lock()
	last := b.current
	over := b.over || b.settled
	b.mu.Unlock()

	a := &attempt{body: b, ended: make(chan struct{})}

	if last != nil {
		last.end()

		if err := b.again(a, over); err != nil {
			return nil, err
		}
	} else if b.reopen != nil {
		a.own = b.source
	}

	b.mu.Lock()
	b.current = a
	b.mu.Unlock()

	return a, nil
}

// errConsumed says that a body cannot be had again.
var errConsumed = errors.New("replay: the body is consumed")

// Replayable reports whether there can be another attempt.
func (b *Body) Replayable() bool {
	b.mu.Lock()
	defer b.mu.Unlock()

	return b.source == nil || b.reopen != nil || !b.over && !b.settled
}

// Settle says that there will be no other attempt: nothing is kept any more, and the
// body is closed as soon as the last attempt is.
func (b *Body) Settle() {
	if b.source == nil {
		return
	}

	b.mu.Lock()
	b.settled = true

	last := b.current
	if last == nil || last.at >= len(b.kept) {
		b.kept = nil

		if last != nil {
			last.at = 0
		}
	}
	b.mu.Unlock()

	if last != nil && last.isOver() {
		_ = b.source.Close()
	}
}

// Close ends the attempts and closes the body.
func (b *Body) Close() error {
	if b.source == nil {
		return nil
	}

	b.mu.Lock()
	last := b.current
	b.mu.Unlock()

	if last != nil {
		last.end()
	}

	return b.source.Close() //nolint:wrapcheck // stands for what it wraps
}

// attempt is the body as one attempt reads it.
type attempt struct {
	body *Body
	own  io.ReadCloser // a body opened for this attempt, nil where it is shared
	once sync.Once

	ended   chan struct{}
	reading sync.Mutex // held while own is read, which never waits

	at int // in body.kept; guarded by body.mu
}

// Close ends the attempt; the last one, after Settle, closes the body.
func (a *attempt) Close() error {
	a.end()

	var err error
	if a.own != nil && a.own != a.body.source {
		err = a.own.Close()
	}

	a.body.mu.Lock()
	last := a.body.settled
	a.body.mu.Unlock()

	if last {
		err = errors.Join(err, a.body.source.Close())
	}

	return err
}

// Read implements io.Reader.
func (a *attempt) Read(p []byte) (int, error) {
	if a.own != nil {
		a.reading.Lock()
		defer a.reading.Unlock()

		if a.isOver() {
			return 0, errEnded
		}

		return a.own.Read(p) //nolint:wrapcheck // stands for what it wraps
	}

	if a.isOver() {
		return 0, errEnded
	}

	if n, ok := a.fromKept(p); ok {
		return n, nil
	}

	select {
	case a.body.turn <- struct{}{}:
		defer func() { <-a.body.turn }()
	case <-a.ended:
		return 0, errEnded
	}

	// What an attempt before this one was waiting for came meanwhile.
	if n, ok := a.fromKept(p); ok {
		return n, nil
	}

	return a.fromSource(p)
}

func (a *attempt) isOver() bool {
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

// fromKept reads what is kept, and reports whether there was anything.
func (a *attempt) fromKept(p []byte) (int, bool) {
	b := a.body

	b.mu.Lock()
	defer b.mu.Unlock()

	n := copy(p, b.kept[min(a.at, len(b.kept)):])
	a.at += n

	return n, n > 0
}

// fromSource reads on. The caller has its turn.
func (a *attempt) fromSource(p []byte) (int, error) {
	b := a.body

	b.mu.Lock()
	failure := b.failure
	b.mu.Unlock()

	if failure != nil {
		return 0, failure
	}

	n, err := b.source.Read(p)

	b.mu.Lock()
	defer b.mu.Unlock()

	if err != nil {
		b.failure = err
	}

	gone := a.isOver() // then the bytes are the next attempt's

	switch {
	case !gone && (b.settled || b.over || len(b.kept)+n > Kept):
		b.over, b.kept, a.at = true, nil, 0
	default:
		b.kept = append(b.kept, p[:n]...)
		a.at += n
	}

	if gone {
		return 0, errEnded
	}

	return n, err //nolint:wrapcheck // stands for what it wraps
}

func (b *Body) again(a *attempt, over bool) error {
	if b.reopen == nil {
		if over {
			return errConsumed
		}

		return nil
	}

	own, err := b.reopen()
	a.own = own

	return err
}

func (a *attempt) end() {
	a.once.Do(func() { close(a.ended) })

	if a.own != nil {
		a.reading.Lock() // whoever reads it must be done before it is opened again
		defer a.reading.Unlock()
	}
}
