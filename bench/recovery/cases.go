package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// patience is how long a case may take.
const patience = 3 * time.Minute

// bench is what is measured: a host, one provider in a process of its own, the others in
// another one, and callers of all.
type bench struct {
	site

	n         int
	began     time.Duration // how long it took until all had enrolled and were reached
	host      *process
	one, many *process
	load      *load
}

func measure(ctx context.Context, s site, n int, out io.Writer) error {
	b := &bench{site: s, n: n}
	defer b.close()
	if err := b.open(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "%d plugins\n%-34s %10s %10s %10s  %s\n", n, "", "first", "95 %", "all",
		"failed calls; identities, renewed, connections; processor time of host, plugins, callers; longest lag of each")
	_, _ = fmt.Fprintf(out, "%-34s %10s %10s %10s  ; %s; %s\n", "enrolled, and reached", "", "",
		b.began.Round(time.Millisecond), b.tallies().since(tallies{}), b.lags())
	for _, c := range []struct {
		name string
		does func(context.Context) error
		of   int // providers that have to be reached again
	}{
		{"nothing happens", func(context.Context) error { return nil }, n},
		{"host killed and back", b.restartHost, n},
		{"provider killed and back", b.restartOne, 1},
		{"provider replaced by SIGTERM", b.replaceOne, 1},
		{"all providers killed and back", b.restartAll, n},
	} {
		if !strings.Contains(c.name, b.only) {
			continue
		}
		if err := b.run(ctx, out, c.name, c.does, c.of); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (b *bench) run(ctx context.Context, out io.Writer, name string, does func(context.Context) error, of int) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b.load.reset()
	_ = b.lags()
	before := b.tallies()
	b.mark()
	if err := does(ctx); err != nil {
		return err
	}
	if err := b.load.settle(limited, of); err != nil {
		return fmt.Errorf("%w; so far %s", err, b.load.result(of))
	}
	b.mark()
	time.Sleep(tellAtLast) // until all have told what they did
	_, _ = fmt.Fprintf(out, "%-34s %s; %s; %s\n", name, b.load.result(of), b.tallies().since(before), b.lags())
	b.load.reset()
	return b.load.settle(limited, b.n) // before the next case
}

// tallies are those of all processes.
type tallies struct {
	of      map[*process]tally // but this one
	host    *process
	callers time.Duration
}

func (b *bench) tallies() tallies {
	all := tallies{of: map[*process]tally{}, host: b.host, callers: processor()}
	for _, p := range []*process{b.host, b.one, b.many} {
		all.of[p] = *p.told.Load()
	}
	return all
}

// since says what was done since an earlier time. A process that was not there did all that it tells of.
func (t tallies) since(before tallies) string {
	host := t.of[t.host].since(before.of[t.host])
	var plugins time.Duration
	for p, now := range t.of {
		if p != t.host {
			plugins += now.since(before.of[p]).Processor
		}
	}
	const unit = 10 * time.Millisecond
	return fmt.Sprintf("%d, %d, %d; %s, %s, %s", host.Issued, host.Renewed, host.Connections,
		host.Processor.Round(unit), plugins.Round(unit), (t.callers - before.callers).Round(unit))
}

// lags are by how much the host, the plugins and the callers were late at most, since the last time.
func (b *bench) lags() string {
	const unit = time.Millisecond
	plugins := max(b.one.late.take(), b.many.late.take())
	return fmt.Sprintf("%s, %s, %s", b.host.late.take().Round(unit), plugins.Round(unit), b.load.lag.take().Round(unit))
}

// mark has all processes begin another profile.
func (b *bench) mark() {
	if b.profiles == "" {
		return
	}
	for _, p := range []*process{b.host, b.one, b.many} {
		_ = p.cmd.Process.Signal(syscall.SIGUSR1)
	}
}

// open starts everything.
func (b *bench) open(ctx context.Context) error {
	var err error
	b.arrived = new(arrivals)
	if b.dir, err = os.MkdirTemp("", "recovery"); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: b.dir})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if b.addr, err = freeAddr(ctx); err != nil {
		return err
	}
	if b.host, err = b.start(ctx, roleHost, 0, 0); err != nil {
		return err
	}
	begun := time.Now()
	if b.one, err = b.start(ctx, rolePlugins, 0, 1); err != nil {
		return err
	}
	if b.many, err = b.start(ctx, rolePlugins, 1, b.n-1); err != nil {
		return err
	}
	if b.load, err = b.begin(ctx, authority, b.n); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b.load.reset()
	err = b.load.settle(limited, b.n)
	b.began = time.Since(begun)
	time.Sleep(2 * tellEvery) // until all have told what they did
	return err
}

// freeAddr returns an address of loopback on which nobody listens, with a port that the system does not
// give to those who ask for any: the host comes back there, whoever connects meanwhile.
func freeAddr(ctx context.Context) (addr string, err error) {
	const first, ports = 20_000, 12_000
	for range 100 {
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(ports))) //nolint:gosec // any of them serves
		var l net.Listener
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err == nil {
			if err = l.Close(); err == nil {
				return addr, nil
			}
		}
	}
	return "", fmt.Errorf("listen: %w", err)
}

// restartHost counts from the moment in which the new host listens: until then nobody can
// come back. What fails counts from the kill.
func (b *bench) restartHost(ctx context.Context) error {
	b.host.kill()
	var err error
	b.host, err = b.start(ctx, roleHost, 0, 0)
	b.load.restart()
	return err
}

func (b *bench) restartOne(ctx context.Context) (err error) {
	b.one.kill()
	b.load.restart()
	b.one, err = b.start(ctx, rolePlugins, 0, 1)
	return err
}

// replaceOne starts the next instance, gives it a moment, and ends the first one.
func (b *bench) replaceOne(ctx context.Context) error {
	next, err := b.start(ctx, rolePlugins, 0, 1)
	if err != nil {
		return err
	}
	time.Sleep(time.Second) // as an operator waits until the next instance is ready
	b.one.stop()
	b.one = next
	b.load.restart()
	return nil
}

func (b *bench) restartAll(ctx context.Context) (err error) {
	b.one.kill()
	b.many.kill()
	b.load.restart()
	if b.one, err = b.start(ctx, rolePlugins, 0, 1); err != nil {
		return err
	}
	b.many, err = b.start(ctx, rolePlugins, 1, b.n-1)
	return err
}

func (b *bench) close() {
	if b.load != nil {
		b.load.stop()
	}
	for _, p := range []*process{b.one, b.many, b.host} {
		if p != nil {
			p.kill()
		}
	}
	_ = os.RemoveAll(b.dir)
}
