package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// What a busy day brings: nothing that a limit is there for.
const (
	manyCalls      = 100 // at once
	manyStreams    = 20
	manyOrders     = 16  // calls that a subject is told to make, at once
	moreThanFit    = 300 // calls; the host takes 256 streams of a connection
	manyMessages   = 1000
	manyHandshakes = 10
	manyWatches    = 20
	largeMessage   = 1 << 20 // bytes
)

// atOnce plays f so many times at once and returns the first error.
func atOnce(n int, f func(i int) error) error {
	ended := make(chan error, n)
	for i := range n {
		go func() { ended <- f(i) }()
	}
	var first error
	for range n {
		if err := <-ended; first == nil {
			first = err
		}
	}
	return first
}

// load is a lot of what every row plays once.
type load struct {
	name string
	play func(context.Context, *stub) error
}

func loads() []load {
	return []load{
		{strconv.Itoa(manyCalls) + " calls at once, each with its own answer", manyUnary},
		{strconv.Itoa(manyStreams) + " streams at once, whose messages alternate", manyConversations},
		{strconv.Itoa(manyMessages) + " messages on a stream, in either direction", longStreams},
		{"a message of a mebibyte", large},
	}
}

func manyUnary(ctx context.Context, s *stub) error {
	return atOnce(manyCalls, func(i int) error {
		value := strconv.Itoa(i)
		got, err := s.unary(ctx, methods[shapeUnary], value)
		return errors.Join(err, expect(got, value))
	})
}

// manyConversations sends on every stream, then receives on every stream, and so on.
func manyConversations(ctx context.Context, s *stub) error {
	ctx, cancel := context.WithCancel(ctx) // ends those that an error leaves open
	defer cancel()
	streams := make([]*connect.BidiStreamForClient[text, text], manyStreams)
	for i := range streams {
		streams[i] = s.of(methods[shapeBidi]).CallBidiStream(ctx)
	}
	for _, word := range three {
		for i, stream := range streams {
			if err := stream.Send(wrapperspb.String(word + strconv.Itoa(i))); err != nil {
				_, err = stream.Receive()
				return fmt.Errorf("stream %d: %w", i, err)
			}
		}
		for i, stream := range streams {
			m, err := stream.Receive()
			if err != nil {
				return fmt.Errorf("stream %d: %w", i, err)
			}
			if err := expect(m.GetValue(), word+strconv.Itoa(i)); err != nil {
				return err
			}
		}
	}
	for _, stream := range streams {
		_ = stream.CloseRequest()
		if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
			return fmt.Errorf("a stream ends with %w", err)
		}
		_ = stream.CloseResponse()
	}
	return nil
}

func longStreams(ctx context.Context, s *stub) error {
	values := make([]string, manyMessages)
	for i := range values {
		values[i] = strconv.Itoa(i)
	}
	want := strings.Join(values, ",")
	up, err := s.collect(ctx, values)
	if err := errors.Join(err, short(up, want)); err != nil {
		return err
	}
	down, err := s.repeat(ctx, strconv.Itoa(manyMessages))
	return errors.Join(err, short(down, want))
}

func large(ctx context.Context, s *stub) error {
	value := strings.Repeat("mebibyte", largeMessage/len("mebibyte"))
	got, err := s.unary(ctx, methods[shapeUnary], value)
	return errors.Join(err, short(got, value))
}

// short compares what is too long to be printed.
func short(got, want string) error {
	if got != want {
		return fmt.Errorf("%w: %d bytes instead of %d, or others", errWrongAnswer, len(got), len(want))
	}
	return nil
}

// busy plays what a subject has to bear and to make.
func (p *pluginTable) busy(ctx context.Context) {
	for _, l := range loads() {
		p.row(ctx, v1, l.name, func(ctx context.Context) error {
			return p.with(ctx, p.mine(), func(s *stub) error { return l.play(ctx, s) })
		})
	}
	p.row(ctx, v1, strconv.Itoa(manyOrders)+" calls from it at once", func(ctx context.Context) error {
		return p.with(ctx, p.mine(), func(s *stub) error {
			return atOnce(manyOrders, func(i int) error {
				value := strconv.Itoa(i)
				got, err := s.have(ctx, methods[shapeUnary], value)
				if err != nil {
					return err
				}
				return expect(strings.Join(got.Values, ",")+got.Code, value)
			})
		})
	})
	p.row(ctx, v2, "reports its health beside "+strconv.Itoa(moreThanFit)+" calls from it at once", p.reportsBeside)
}

// reportsBeside has the subject make more calls than a connection takes, and reports while they are open.
func (p *pluginTable) reportsBeside(ctx context.Context) error {
	return p.with(ctx, p.mine(), func(s *stub) error {
		ended := make(chan error, 1)
		// What the subject began ends before the next row, also where this one fails: a watch would wait behind it.
		orders, end := context.WithTimeout(context.WithoutCancel(ctx), rowTime)
		defer end()
		finish := sync.OnceValue(func() error {
			p.stage.held.release()
			return <-ended
		})
		defer func() { _ = finish() }()
		go func() {
			got, err := s.order(orders, order{Method: methods[shapeUnary], Values: []string{heldValue}, AtOnce: moreThanFit})
			if err == nil {
				err = expect(strings.Join(got.Values, ",")+got.Code, heldValue)
			}
			ended <- err
		}()
		if err := p.stage.held.await(ctx, moreThanFit); err != nil {
			return err
		}
		for _, state := range []connectpluginv1.HealthState{degraded, healthy} {
			if _, err := s.unary(ctx, "Health", stateWords[state]); err != nil {
				return err
			}
			if _, err := p.stage.status(ctx, healthIs(state)); err != nil {
				return err
			}
		}
		return finish()
	})
}

// heldValue is what the kit sends back only when a row releases it.
const heldValue = "held"

// holding counts the calls that are held.
type holding struct {
	came atomic.Int64
	once sync.Once
	over chan struct{}
}

func (h *holding) release() { h.once.Do(func() { close(h.over) }) }

func (h *holding) echo(ctx context.Context, value string) (string, error) {
	if value != heldValue {
		return value, nil
	}
	h.came.Add(1)
	select {
	case <-h.over:
		return value, nil
	case <-ctx.Done():
		return "", fmt.Errorf("held: %w", ctx.Err())
	}
}

// await waits until so many calls are held.
func (h *holding) await(ctx context.Context, n int64) error {
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for h.came.Load() < n {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%d calls of %d came: %w", h.came.Load(), n, ctx.Err())
		}
	}
	return nil
}

// busy plays what a host has to bear.
func (h *hostTable) busy(ctx context.Context, p *pair) {
	for _, l := range loads() {
		h.row(ctx, v1, l.name, func(ctx context.Context) error { return l.play(ctx, p.stub()) })
	}
	h.row(ctx, v1, strconv.Itoa(manyHandshakes)+" handshakes at once, each with its own identity", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, _ http.Header) error { // the connection is there by now, and is the only one
			ids := make([]string, manyHandshakes)
			err := atOnce(len(ids), func(i int) error {
				m, err := h.enrol(ctx, w)
				if err == nil {
					ids[i] = m.GetRuntimeId()
					err = h.good(ctx, w, credentials(m))
				}
				return err
			})
			return errors.Join(err, distinct(ids))
		})
	})
	h.row(ctx, v1, strconv.Itoa(manyWatches)+" watches at once, each told of a change", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error { return p.manyWatch(ctx, w, one) })
	})
}

func distinct(ids []string) error {
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id] {
			return fmt.Errorf("%w: two have the identity %q", errWrongAnswer, id)
		}
		seen[id] = true
	}
	return nil
}

// manyWatch opens watches, has the provider change, and wants the change on each.
func (p *pair) manyWatch(ctx context.Context, w *wire, one http.Header) error {
	watches := make([]*tuned, manyWatches)
	err := atOnce(len(watches), func(i int) (err error) {
		watches[i], err = w.watch(ctx, &connectpluginv1.WatchServiceRequest{ServiceType: typeSubject}, one)
		if err == nil {
			_, err = watches[i].next()
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, state := range []connectpluginv1.HealthState{degraded, healthy} {
		if err := p.report(ctx, state); err != nil {
			return err
		}
		for _, t := range watches {
			e, err := t.next()
			if err != nil {
				return err
			}
			if err := expect(e.GetState().String(), statesOf[state].String()); err != nil {
				return err
			}
		}
	}
	return nil
}
