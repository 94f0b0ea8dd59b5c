package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

const (
	healthy  = connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
	degraded = connectpluginv1.HealthState_HEALTH_STATE_DEGRADED

	stateAvailable = "available"
	stateDegraded  = "degraded"
)

// watching is a watch of the subject's, which tells the kit what it gets.
type watching struct {
	stream *connect.ServerStreamForClient[text]
	last   change
}

var errNoChange = errors.New("the watch ends")

// next is the next change that the subject tells of.
func (w *watching) next() (change, error) {
	if !w.stream.Receive() {
		return change{}, fmt.Errorf("%w: %w", errNoChange, orNone(w.stream.Err()))
	}
	var c change
	if err := json.Unmarshal([]byte(w.stream.Msg().GetValue()), &c); err != nil {
		return c, fmt.Errorf("change: %w", err)
	}
	w.last = c
	return c, nil
}

var errNone = errors.New("without an error")

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

// expect takes the next change and compares it.
func (w *watching) expect(state string, sequence uint64) error {
	c, err := w.next()
	if err != nil {
		return err
	}
	return expect(fmt.Sprintf("%s %d, resync %t", c.State, c.Sequence, c.Resync), fmt.Sprintf("%s %d, resync false", state, sequence))
}

// watches plays one watch of the subject over changes, a cut and an overflow.
func (p *pluginTable) watches(ctx context.Context) {
	life, cancel := context.WithCancel(ctx)
	defer cancel()
	s, end, err := p.stage.subject(life, p.mine()...)
	if err != nil {
		p.note("a watch", err)
		return
	}
	defer end()
	w := &watching{}
	if !p.row(ctx, v1, "begins with the current state", func(context.Context) error { return w.open(life, s) }) {
		return
	}
	defer func() { _ = w.stream.Close() }()
	p.row(ctx, v1, "tells of each change", func(ctx context.Context) error {
		return p.overChanges(ctx, w)
	})
	p.row(ctx, v2, "resumes after a cut and misses nothing", func(ctx context.Context) error {
		return p.overCut(ctx, w)
	})
	p.row(ctx, v2, "is told where it missed something", func(ctx context.Context) error { return p.overflow(ctx, w) })
}

func (w *watching) open(ctx context.Context, s *stub) (err error) {
	w.stream, err = s.of("Watch").CallServerStream(ctx, connect.NewRequest(wrapperspb.String(typeKit)))
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	c, err := w.next()
	if err != nil {
		return err
	}
	return expect(c.State, stateAvailable)
}

// overChanges makes two changes and has the subject tell of both.
func (p *pluginTable) overChanges(ctx context.Context, w *watching) error {
	last := w.last.Sequence
	for i, state := range []connectpluginv1.HealthState{degraded, healthy} {
		if err := p.stage.report(ctx, state); err != nil {
			return err
		}
		want := []string{stateDegraded, stateAvailable}[i]
		if p.first {
			c, err := w.next()
			if err != nil {
				return err
			}
			if err := expect(c.State, want); err != nil {
				return err
			}
			continue
		}
		if err := w.expect(want, last+uint64(i)+1); err != nil {
			return err
		}
	}
	return nil
}

// cut plays f while the subject cannot reach the host, and waits for its watch after
// that.
func (p *pluginTable) cut(ctx context.Context, f func() error) (*connectpluginv1.WatchServiceRequest, error) {
	s := p.stage
	s.front.cut()
	s.record.mu.Lock()
	mark := len(s.record.watches)
	s.record.mu.Unlock()
	err := f()
	s.front.mend()
	if err != nil {
		return nil, err
	}
	var again *connectpluginv1.WatchServiceRequest
	err = s.record.await(ctx, func() bool {
		for _, w := range s.record.watches[mark:] {
			if w.GetEpoch() != "" {
				again = w
				return true
			}
		}
		return false
	})
	if err != nil {
		return nil, fmt.Errorf("it opens no watch with an epoch again: %w", err)
	}
	return again, nil
}

func (p *pluginTable) change(ctx context.Context, states ...connectpluginv1.HealthState) error {
	for _, state := range states {
		if err := p.stage.report(ctx, state); err != nil {
			return err
		}
	}
	return nil
}

func (p *pluginTable) overCut(ctx context.Context, w *watching) error {
	last := w.last.Sequence
	again, err := p.cut(ctx, func() error { return p.change(ctx, degraded, healthy) })
	if err != nil {
		return err
	}
	if again.GetResumeAfter() != last {
		return fmt.Errorf("%w: resume_after is %d instead of %d", errWrongAnswer, again.GetResumeAfter(), last)
	}
	if err := w.expect(stateDegraded, last+1); err != nil {
		return err
	}
	return w.expect(stateAvailable, last+2)
}

// overflow makes more changes than the host keeps.
func (p *pluginTable) overflow(ctx context.Context, w *watching) error {
	last := w.last.Sequence
	_, err := p.cut(ctx, func() error {
		return p.change(ctx, degraded, healthy, degraded, healthy, degraded, healthy)
	})
	if err != nil {
		return err
	}
	c, err := w.next()
	if err != nil {
		return err
	}
	if c.State != stateAvailable || !c.Resync || c.Sequence != last+c.Missed+1 || c.Missed == 0 {
		return fmt.Errorf("%w: %+v after %d", errWrongAnswer, c, last)
	}
	return nil
}
