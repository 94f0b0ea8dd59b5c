package echo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Caller calls the service with one library. It is safe for concurrent use.
type Caller interface {
	// Unary calls a method with one request and one answer.
	Unary(ctx context.Context, method string, in []byte) ([]byte, error)
	// Open opens a stream of one of the three kinds.
	Open(ctx context.Context, method string) (CallerStream, error)
	// Failure reads an error of the library. Code 0 says that it is none of a call.
	Failure(err error) CallError
	// Move sets the prefix of later calls.
	Move(prefix string)
	// Close closes what the caller holds open.
	Close()
}

// CallerStream is a caller's end of a stream.
type CallerStream interface {
	Stream
	// CloseSend says that nothing more is sent.
	CloseSend() error
}

var errWrong = errors.New("wrong answer")

// wrong reports an answer that is not the expected one.
func wrong(what, got, want string) error {
	const enough = 60
	return fmt.Errorf("%w: %s: got %.*q, want %.*q", errWrong, what, enough, got, enough, want)
}

// expect receives one message and compares it.
func expect(s Stream, want string) error {
	got, err := s.Receive()
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if string(got) != want {
		return wrong("message", string(got), want)
	}
	return nil
}

// expectEnd receives the end.
func expectEnd(s Stream) error {
	got, err := s.Receive()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("end: %w", err)
	default:
		return wrong("end", string(got), "")
	}
}

// exchange sends a message and receives it back.
func exchange(s CallerStream, text string) error {
	if err := s.Send([]byte(text)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return expect(s, text)
}

// finish ends a bidirectional stream in order.
func finish(s CallerStream) error {
	if err := s.CloseSend(); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	if err := expect(s, Done); err != nil {
		return err
	}
	return expectEnd(s)
}

// openBidi opens a bidirectional stream and exchanges a first message on it.
func openBidi(ctx context.Context, c Caller) (CallerStream, error) {
	s, err := c.Open(ctx, MethodBidi)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return s, exchange(s, "first")
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

const (
	patience  = 10 * time.Second // for what should follow at once
	pollEvery = 50 * time.Millisecond
)

// awaitRunning waits until so many calls run at the provider, as that counts.
func awaitRunning(ctx context.Context, c Caller, want int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		out, err := c.Unary(ctx, MethodCount, nil)
		if err != nil {
			return fmt.Errorf("count: %w", err)
		}
		if string(out) == strconv.Itoa(want) {
			return nil
		}
		if pause(ctx, pollEvery); ctx.Err() != nil {
			return fmt.Errorf("%w: %s calls run at the provider, want %d", errWrong, out, want)
		}
	}
}
