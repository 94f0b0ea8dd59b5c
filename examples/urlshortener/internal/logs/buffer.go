// Package logs passes log entries on without ever being in the way.
package logs

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	loggerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1"
)

const (
	capacity    = 4096
	maxBatch    = 256
	sendTimeout = 2 * time.Second
	pause       = 250 * time.Millisecond
)

// Send passes entries on, and returns an error where they did not arrive.
type Send func(ctx context.Context, entries []*loggerv1.Entry) error

// Buffer takes log entries and passes them on in the background. Logging never
// blocks and never fails: an entry that finds the buffer full, and one that could
// not be passed on, is dropped and counted. It is safe for concurrent use.
type Buffer struct {
	// Fixed at creation.
	send    Send
	entries chan *loggerv1.Entry
	stop    context.CancelFunc
	done    chan struct{}

	sent, dropped atomic.Int64
}

// NewBuffer makes a buffer. Its owner closes it.
func NewBuffer(send Send) *Buffer {
	ctx, stop := context.WithCancel(context.Background())
	b := &Buffer{send: send, entries: make(chan *loggerv1.Entry, capacity), stop: stop, done: make(chan struct{})}

	go b.run(ctx)

	return b
}

// Log takes an entry.
func (b *Buffer) Log(level, message string, fields map[string]string) {
	e := &loggerv1.Entry{Time: timestamppb.Now(), Level: level, Message: message, Fields: fields}
	select {
	case b.entries <- e:
	default:
		b.dropped.Add(1)
	}
}

// Counts returns how many entries were passed on and how many were dropped.
func (b *Buffer) Counts() (sent, dropped int64) {
	return b.sent.Load(), b.dropped.Load()
}

// Close stops passing entries on. What is left in the buffer is lost.
func (b *Buffer) Close() {
	b.stop()
	<-b.done
}

// run passes entries on until ctx ends.
func (b *Buffer) run(ctx context.Context) {
	defer close(b.done)

	for {
		select {
		case e := <-b.entries:
			if b.pass(ctx, b.batch(e)) {
				continue
			}

			select { // nobody is there: give them time to come back
			case <-time.After(pause):
			case <-ctx.Done():
			}
		case <-ctx.Done():
			return
		}
	}
}

// batch returns an entry and those that wait behind it.
func (b *Buffer) batch(first *loggerv1.Entry) []*loggerv1.Entry {
	entries := []*loggerv1.Entry{first}
	for len(entries) < maxBatch {
		select {
		case e := <-b.entries:
			entries = append(entries, e)
		default:
			return entries
		}
	}

	return entries
}

func (b *Buffer) pass(ctx context.Context, entries []*loggerv1.Entry) bool {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()

	if err := b.send(ctx, entries); err != nil {
		b.dropped.Add(int64(len(entries)))

		return false
	}

	b.sent.Add(int64(len(entries)))

	return true
}
