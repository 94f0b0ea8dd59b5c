package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// plan is what is measured.
type plan struct {
	replacements int
	streams      int
	callers      int // of each way
}

func (p *plan) measure(ctx context.Context, out io.Writer) error {
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	host, stop, err := startHost(ctx, authority)
	if err != nil {
		return err
	}
	defer stop()
	direct, err := directWay(host)
	if err != nil {
		return err
	}
	user, err := enrol(ctx, host, authority)
	if err != nil {
		return err
	}
	defer func() { _ = user.Close() }()
	routed, err := routedWay(ctx, user)
	if err != nil {
		return err
	}
	load, end := context.WithCancel(ctx)
	defer end()
	var t tally
	var working sync.WaitGroup
	p.load(load, &working, &t, direct, routed)
	took, all, err := p.replace(ctx, host.Launcher())
	if err != nil {
		return err
	}
	end()
	working.Wait()
	return t.print(out, took, all)
}

// load calls both ways, and keeps streams open on the routed one, until ctx ends.
func (p *plan) load(ctx context.Context, working *sync.WaitGroup, t *tally, direct, routed way) {
	for range p.callers {
		working.Go(func() { t.call(ctx, direct.name, direct.client(echoSay)) })
		working.Go(func() { t.call(ctx, routed.name, routed.client(echoSay)) })
	}
	for range p.streams {
		working.Go(func() { t.stream(ctx, routed.client(echoStream)) })
	}
}

// replace makes the replacements. It returns the time that each took, and that of all.
func (p *plan) replace(ctx context.Context, launcher *connectplugin.PluginLauncher) (took []time.Duration, all time.Duration, err error) {
	begun := time.Now()
	for range p.replacements {
		from := time.Now()
		if err := launcher.Replace(ctx, echoName); err != nil {
			return nil, 0, fmt.Errorf("replace: %w", err)
		}
		took = append(took, time.Since(from))
	}
	return took, time.Since(begun), nil
}
