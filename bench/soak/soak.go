package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/attack/kinds"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

const (
	pause  = 5 * time.Millisecond // of an honest caller
	churns = 300 * time.Millisecond
	gives  = 20 * time.Millisecond // after which a call is given up
	warm   = 3 * time.Second       // of honest load alone, before anything is measured
	eases  = 3 * time.Minute       // within which everything has to be as before; idle connections last for two
	looks  = 5 * time.Second

	// What may be more in the end: tables that grow once, and keep their size.
	moreGoroutines  = 5
	moreDescriptors = 3
	moreLive        = 3 << 20
	moreResident    = 48 << 20

	mebi = 1 << 20
)

var errLeft = errors.New("the host is not where it began, or honest calls failed")

// soak is a run of the command, or what one of its processes is told.
type soak struct {
	lasts   time.Duration
	dir     string
	addr    string
	profile string
	shadow  int64 // resident memory that a race detector may keep, beyond what else may be more

	authority      *connectplugin.Authority
	host, provider *stage.Process

	done, failed atomic.Int64 // honest calls
	attacks, cut int

	mu   sync.Mutex
	last error // of an honest call
}

// state is what the host has.
type state struct {
	goroutines, descriptors int
	live, resident          int64
}

func (s *soak) measure(ctx context.Context, out io.Writer) (err error) {
	defer s.close()
	if err := s.open(ctx); err != nil {
		return err
	}
	if err := s.load(ctx, warm, false); err != nil {
		return err
	}
	before, err := s.settled(ctx, nil)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "%-8s %s\n", "before", before)
	if err := s.load(ctx, s.lasts, true); err != nil {
		return err
	}
	after, err := s.settled(ctx, before)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "%-8s %s\n%d attacks, of which %d were cut off; %d honest calls, of which %d failed\n",
		"after", after, s.attacks, s.cut, s.done.Load(), s.failed.Load())
	if s.profile != "" {
		var on bool
		_, _ = s.host.Ask(stage.WordProfile, &on), s.host.Ask(stage.WordProfile, &on)
	}
	if s.failed.Load() > 0 || !after.like(before, s.shadow) {
		return errors.Join(errLeft, s.last)
	}
	return nil
}

func (s *soak) open(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "soak"); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if s.authority, err = connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: s.dir}); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if s.host, err = stage.Start(ctx, roleHost, "-dir", s.dir, "-profile", s.profile); err != nil {
		return err
	}
	s.addr = s.host.Said
	s.provider, err = stage.Start(ctx, roleProvider, "-dir", s.dir, "-addr", s.addr)
	return err
}

func (s *soak) close() {
	for _, p := range []*stage.Process{s.provider, s.host} {
		if p != nil {
			p.Kill()
		}
	}
	_ = os.RemoveAll(s.dir)
}

// load is honest load for a time, and hostile load beside it.
func (s *soak) load(ctx context.Context, d time.Duration, hostile bool) error {
	caller, err := stage.Connect(ctx, s.authority, s.addr, stage.Probe, stage.Echo)
	if err != nil {
		return err
	}
	defer caller.Close(context.WithoutCancel(ctx))
	if err := caller.Await(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var working sync.WaitGroup
	defer working.Wait()
	for every, does := range map[time.Duration]func(context.Context) error{
		pause:      caller.Call,
		2 * pause:  func(ctx context.Context) error { return caller.Glance(ctx, stage.Echo) },
		10 * pause: func(ctx context.Context) error { return caller.GiveUp(ctx, gives) },
		churns:     s.churn,
	} {
		working.Go(func() { s.repeat(ctx, every, does) })
	}
	for n := 0; hostile && ctx.Err() == nil; n++ {
		if err := s.attack(ctx, n); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// repeat does what is honest again and again, and counts.
func (s *soak) repeat(ctx context.Context, every time.Duration, does func(context.Context) error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		s.done.Add(1)
		if err := does(context.WithoutCancel(ctx)); err != nil {
			s.failed.Add(1)
			s.mu.Lock()
			s.last = err
			s.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// churn is a plugin that comes, calls and leaves.
func (s *soak) churn(ctx context.Context) error {
	c, err := stage.Connect(ctx, s.authority, s.addr, stage.Probe, stage.Echo)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	return c.Await(ctx)
}

// attack plays one kind.
func (s *soak) attack(ctx context.Context, n int) error {
	p, err := stage.Start(ctx, roleAttacker, "-dir", s.dir, "-addr", s.addr, "-kind", strconv.Itoa(n), "-for", attack.String())
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was ended with the load
	}
	if err != nil {
		return err
	}
	var outcome kinds.Outcome
	heard := p.Hear(&outcome)
	_, ended := p.End()
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was ended with the load
	}
	s.attacks++
	if outcome.CutAfter > 0 {
		s.cut++
	}
	return errors.Join(heard, ended)
}

// settled is the host after a collection, once it is like it was, or cannot be any more.
func (s *soak) settled(ctx context.Context, before *state) (*state, error) {
	ctx, cancel := context.WithTimeout(ctx, eases)
	defer cancel()
	for {
		select {
		case <-time.After(looks):
		case <-ctx.Done():
		}
		var rest stage.Rest
		if err := s.host.Ask(stage.WordRest, &rest); err != nil {
			return nil, err
		}
		u, err := s.host.Usage()
		if err != nil {
			return nil, err
		}
		now := &state{rest.Goroutines, u.Descriptors, int64(rest.Heap + rest.Stacks), u.Resident} //nolint:gosec // it is no exabyte
		if before == nil || now.like(before, s.shadow) || ctx.Err() != nil {
			return now, nil
		}
	}
}

func (s *state) String() string {
	return fmt.Sprintf("%4d goroutines, %4d descriptors, %6.1f MiB live, %6.1f MiB resident", s.goroutines, s.descriptors,
		float64(s.live)/mebi, float64(s.resident)/mebi)
}

func (s *state) like(before *state, shadow int64) bool {
	return s.goroutines <= before.goroutines+moreGoroutines && s.descriptors <= before.descriptors+moreDescriptors &&
		s.live <= before.live+moreLive && s.resident <= before.resident+moreResident+shadow
}
