package echo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	codeUnavailable = 14
	codeNotFound    = 5
	cancels         = 5 // calls of each kind that are given up
	quietStreams    = 150
	inFlight        = 20
	longStreams     = 4
	workers         = 4
	halfway         = 2 * time.Second
	stopSleep       = "3000" // ms: longer than it takes to tell the provider to stop
	workPause       = 5 * time.Millisecond
)

var (
	errUnknownCase = errors.New("no such case")
	errWaits       = errors.New("calls go on waiting in the library after their context has ended")
)

// playWithOthers plays the cases in which many calls are open, or something is done
// to the provider meanwhile.
func playWithOthers(ctx context.Context, name string, c Caller, j Job, t *Talk) (string, error) {
	switch name {
	case CaseStreams:
		return "", playOpen(ctx, c, j.Streams, func() error { return nil })
	case CaseSilence:
		return "", playOpen(ctx, c, quietStreams, func() error {
			if _, err := t.Ready(); err != nil {
				return err
			}
			pause(ctx, time.Duration(j.Silence)*time.Millisecond)
			return nil
		})
	case CaseStop:
		return playStop(ctx, c, t)
	case CaseKill:
		return playKill(ctx, c, t)
	default:
		return "", fmt.Errorf("%w: %q", errUnknownCase, name)
	}
}

// group runs functions at once and keeps the first error.
type group struct {
	wg     sync.WaitGroup
	failed atomic.Int64

	mu  sync.Mutex
	err error
}

func (g *group) run(f func() error) {
	g.wg.Go(func() {
		err := f()
		if err == nil {
			return
		}
		g.failed.Add(1)
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.err == nil {
			g.err = err
		}
	})
}

// wait waits for all of them and tells how many failed.
func (g *group) wait(of int) error {
	g.wg.Wait()
	if n := g.failed.Load(); n > 0 {
		return fmt.Errorf("%d of %d: %w", n, of, g.err)
	}
	return nil
}

// waitFor is wait for what has to end soon.
func (g *group) waitFor(limit time.Duration, of int) error {
	ended := make(chan error, 1)
	go func() { ended <- g.wait(of) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return errWaits // the process ends, and what waits with it
	}
}

// playOpen opens n streams, waits until all are open, does something, and uses and
// ends each of them.
func playOpen(ctx context.Context, c Caller, n int, between func() error) error {
	streams := make([]CallerStream, n)
	var opening, ending group
	for i := range n {
		opening.run(func() (err error) {
			streams[i], err = openBidi(ctx, c)
			return err
		})
	}
	if err := opening.wait(n); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := between(); err != nil {
		return err
	}
	for _, s := range streams {
		ending.run(func() error {
			if err := exchange(s, "second"); err != nil {
				return err
			}
			return finish(s)
		})
	}
	if err := ending.wait(n); err != nil {
		return fmt.Errorf("after: %w", err)
	}
	return nil
}

// playCancel gives calls up and waits until the provider knows of each.
func playCancel(ctx context.Context, c Caller) error {
	doomed, cancel := context.WithCancel(ctx)
	defer cancel()
	var given group
	for range cancels {
		given.run(func() error {
			_, err := c.Unary(doomed, MethodSleep, []byte(longSleep))
			return mustFail(err)
		})
	}
	for range cancels {
		s, err := openBidi(doomed, c)
		if err != nil {
			return err
		}
		given.run(func() error {
			_, err := s.Receive()
			return mustFail(err)
		})
	}
	err := awaitRunning(ctx, c, cancels+cancels)
	cancel()
	if err != nil {
		return err
	}
	if err := given.waitFor(patience, cancels+cancels); err != nil {
		return err
	}
	return awaitRunning(ctx, c, 0)
}

// mustFail reports that a call did not fail.
func mustFail(err error) error {
	if err == nil {
		return fmt.Errorf("%w: no error", errWrong)
	}
	return nil
}

// playStop has calls in flight and a load of short ones while the provider is asked to stop:
// the former end well, of the latter none fails otherwise than with unavailable, or with
// not_found where the provider takes its registration back.
func playStop(ctx context.Context, c Caller, t *Talk) (string, error) {
	loading, end := context.WithCancel(ctx)
	defer end()
	var flight, load group
	var good, refused atomic.Int64
	for range inFlight {
		flight.run(func() error {
			_, err := c.Unary(ctx, MethodSleep, []byte(stopSleep))
			return err
		})
	}
	opened := make(chan struct{}, longStreams)
	for range longStreams {
		flight.run(func() error { return spanStop(ctx, c, opened) })
	}
	for range longStreams {
		<-opened
	}
	for range workers {
		load.run(func() error { return shortCalls(ctx, loading, c, &good, &refused) })
	}
	if err := awaitRunning(ctx, c, inFlight+longStreams); err != nil {
		return "", err
	}
	if _, err := t.Ready(); err != nil {
		return "", err
	}
	end()
	if err := flight.wait(inFlight + longStreams); err != nil {
		return "", fmt.Errorf("in flight: %w", err)
	}
	if err := load.wait(workers); err != nil {
		return "", fmt.Errorf("load: %w", err)
	}
	return fmt.Sprintf("%d short calls, %d refused", good.Load(), refused.Load()), nil
}

// spanStop has a stream open before and after the provider was asked to stop.
func spanStop(ctx context.Context, c Caller, opened chan<- struct{}) error {
	s, err := openBidi(ctx, c)
	opened <- struct{}{}
	if err != nil {
		return err
	}
	pause(ctx, halfway)
	if err := exchange(s, "second"); err != nil {
		return err
	}
	return finish(s)
}

// shortCalls makes calls until loading ends.
func shortCalls(ctx, loading context.Context, c Caller, good, refused *atomic.Int64) error {
	for loading.Err() == nil {
		_, err := c.Unary(ctx, MethodUnary, []byte("load"))
		switch f := c.Failure(err); {
		case err == nil:
			good.Add(1)
		case f.Code == codeUnavailable, f.Code == codeNotFound:
			refused.Add(1)
			pause(ctx, workPause)
		default:
			return err
		}
	}
	return nil
}

// playKill has calls in flight while the provider is killed: each ends with
// unavailable. Then the provider is there again, and calls reach it.
func playKill(ctx context.Context, c Caller, t *Talk) (string, error) {
	var flight group
	for range inFlight {
		flight.run(func() error {
			_, err := c.Unary(ctx, MethodSleep, []byte(longSleep))
			return unavailable(c, err)
		})
	}
	for range longStreams {
		s, err := openBidi(ctx, c)
		if err != nil {
			return "", err
		}
		flight.run(func() error {
			_, err := s.Receive()
			return unavailable(c, err)
		})
	}
	if err := awaitRunning(ctx, c, inFlight+longStreams); err != nil {
		return "", err
	}
	prefix, err := t.Ready()
	if err != nil {
		return "", err
	}
	if err := flight.wait(inFlight + longStreams); err != nil {
		return "", fmt.Errorf("in flight: %w", err)
	}
	c.Move(prefix)
	return again(ctx, c)
}

func unavailable(c Caller, err error) error {
	if f := c.Failure(err); f.Code != codeUnavailable {
		return fmt.Errorf("%w: code %d, want %d: %w", errWrong, f.Code, codeUnavailable, orWrong(err))
	}
	return nil
}

// again calls the provider that was started anew until it answers.
func again(ctx context.Context, c Caller) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for tries := 1; ; tries++ {
		_, err := c.Unary(ctx, MethodUnary, []byte("again"))
		if err == nil {
			return fmt.Sprintf("answers again at try %d", tries), nil
		}
		if f := c.Failure(err); f.Code != codeUnavailable || ctx.Err() != nil {
			return "", fmt.Errorf("again: %w", err)
		}
		pause(ctx, pollEvery)
	}
}
