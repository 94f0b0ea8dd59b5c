package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/stage"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

const (
	patience = 3 * time.Minute
	settles  = 2 * time.Second // after what happened, before the host is idle
	changes  = 9

	firstRound = 12 * time.Second // in which the host asks each plugin for its health

	middle = 0.5
	tenth  = time.Millisecond / 10
	kibi   = 1 << 10
)

// bench is one size.
type bench struct {
	n       int
	idle    time.Duration
	profile string
	dir     string
	addr    string

	host, plugins *stage.Process
	changer       *connectplugin.Client
}

// result is what was measured of one size.
type result struct {
	n              int
	enrolled       time.Duration
	plugin, live   int64 // bytes of the host for each, idle with its watches: resident, and heap with stacks
	watch          int64 // bytes for each watch
	cores          float64
	caller, change stage.Times // of each change
}

func (b *bench) measure(ctx context.Context) (r result, err error) {
	r.n = b.n
	defer b.close()
	if err := b.open(ctx); err != nil {
		return r, err
	}
	empty, err := b.memory()
	if err != nil {
		return r, err
	}
	begun := time.Now()
	b.plugins, err = stage.Start(ctx, rolePlugins, "-dir", b.dir, "-addr", b.addr, "-plugins", strconv.Itoa(b.n))
	if err != nil {
		return r, err
	}
	r.enrolled = time.Since(begun)
	time.Sleep(firstRound) // a watch pays for no connection of the host's
	bare, err := b.memory()
	if err != nil {
		return r, err
	}
	var done any
	if err := b.plugins.Ask(wordWatch, &done); err != nil {
		return r, err
	}
	if err := b.idleFor(&r); err != nil {
		return r, err
	}
	full, err := b.memory()
	if err != nil {
		return r, err
	}
	n := int64(b.n)
	r.plugin, r.live = (full.resident-empty.resident)/n, (full.live-empty.live)/n
	r.watch = (full.live - bare.live) / n / watches
	err = b.change(ctx, &r)
	return r, err
}

func (b *bench) open(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "scale"); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: b.dir})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if b.host, err = stage.Start(ctx, roleHost, "-dir", b.dir, "-profile", b.profile); err != nil {
		return err
	}
	b.addr = b.host.Said
	certificate, err := authority.PluginTLS(changerName)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	b.changer, err = connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: "https://" + b.addr, SelfID: changerName, TLS: certificate,
		Metadata: connectplugin.PluginMetadata{Provides: []connectplugin.ServiceDeclaration{{Type: watchedOf(0), Version: version, Path: path}}},
	})
	if err == nil {
		err = b.changer.Connect(ctx)
	}
	if err != nil {
		return fmt.Errorf("changer: %w", err)
	}
	return nil
}

// memory is what the host has after a collection.
type memory struct{ resident, live int64 }

func (b *bench) memory() (m memory, err error) {
	var rest stage.Rest
	if err := b.host.Ask(stage.WordRest, &rest); err != nil {
		return m, err
	}
	u, err := b.host.Usage()
	return memory{u.Resident, int64(rest.Heap + rest.Stacks)}, err //nolint:gosec // it is no exabyte
}

// idleFor looks at the host while nothing happens: once it has asked each plugin for the first
// time, for which it connects to all of them.
func (b *bench) idleFor(r *result) error {
	time.Sleep(settles + b.idle)
	var on bool
	if err := b.host.Ask(stage.WordProfile, &on); err != nil {
		return err
	}
	before, err := b.host.Usage()
	if err != nil {
		return err
	}
	begun := time.Now()
	time.Sleep(b.idle)
	after, err := b.host.Usage()
	if err != nil {
		return err
	}
	r.cores = (after.CPU - before.CPU).Seconds() / time.Since(begun).Seconds()
	return b.host.Ask(stage.WordProfile, &on)
}

// change makes changes of the type that everybody watches.
func (b *bench) change(ctx context.Context, r *result) error {
	registration := ""
	for range changes {
		var before, last int64
		if err := b.plugins.Ask(wordMark, &before); err != nil {
			return err
		}
		begun := time.Now()
		var err error
		if registration, err = b.toggle(ctx, registration); err != nil {
			return fmt.Errorf("change: %w", err)
		}
		r.caller = append(r.caller, time.Since(begun))
		if err := b.plugins.Ask(wordAwait, &last); err != nil {
			return err
		}
		r.change = append(r.change, time.Unix(0, last).Sub(begun))
		time.Sleep(settles)
	}
	return nil
}

// toggle registers the type, or takes the registration back.
func (b *bench) toggle(ctx context.Context, registration string) (string, error) {
	c := b.changer.RegistryClient()
	if registration != "" {
		_, err := c.UnregisterService(ctx, connect.NewRequest(&connectpluginv1.UnregisterServiceRequest{RegistrationId: registration}))
		return "", err
	}
	resp, err := c.RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: watchedOf(0), Version: version, EndpointPath: path, Metadata: map[string]string{"base_url": "https://127.0.0.1:1"},
	}))
	if err != nil {
		return "", err
	}
	return resp.Msg.GetRegistrationId(), nil
}

func (b *bench) close() {
	if b.changer != nil {
		_ = b.changer.Close()
	}
	for _, p := range []*stage.Process{b.plugins, b.host} {
		if p != nil {
			p.Kill()
		}
	}
	_ = os.RemoveAll(b.dir)
}

func begin(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%8s %10s %18s %14s %10s %14s %28s %14s\n", "plugins", "enrolled", "resident a plugin", "live a plugin",
		"a watch", "cores, idle", "change to the last", "its caller")
}

func (r *result) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%8d %10s %14d KiB %10d KiB %6.1f KiB %14.3f %28s %14s\n", r.n, r.enrolled.Round(time.Millisecond),
		r.plugin/kibi, r.live/kibi, float64(r.watch)/kibi, r.cores, spread(r.change), r.caller.At(middle).Round(time.Microsecond))
}

// spread says the median of times, and between which they are: one of them is luck.
func spread(t stage.Times) string {
	at := func(quantile float64) time.Duration { return t.At(quantile).Round(tenth) }
	return fmt.Sprintf("%s (%s to %s)", at(middle), at(0), at(1))
}

// reach prints what is to be reached with 5,000 plugins, host and plugins on two cores.
func reach(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%8s %10s %18s %14s %10s %14s %28s %14s\n", "reach", "25s", "100 KiB", "", "14 KiB", "0.1", "150ms", "no wait")
}
