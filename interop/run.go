package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

// run plays the table and prints it. The error says that something is red that is
// not red without the host.
func (o *options) run(ctx context.Context, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("executable: %w", err)
	}
	if o.front {
		return playFronts(ctx, out, o.logger())
	}
	w := newWorld(self, o.peers, o.cache)
	w.tell(ctx, out)
	if o.list {
		return nil
	}
	pairs, err := w.pairs(o.pairs)
	if err != nil {
		return err
	}
	s, err := newStage(ctx, o.logger(), types(pairs))
	if err != nil {
		return err
	}
	defer s.close()
	t := o.play(ctx, out, s, w, pairs)
	t.print(out)
	if o.pairs == "" && o.only == "" {
		err = playFronts(ctx, out, o.logger())
	}
	if t.red() {
		return errRed
	}
	return cmp.Or(err, ctx.Err())
}

// logger is what hosts of a run say.
func (o *options) logger() *slog.Logger {
	if o.verbose {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// quietly tells the provider of a silence from that of the other cases.
const quietly = "-quiet"

// types are the service types of the pairs.
func types(pairs []pair) []string {
	out := make([]string, 0, 2*len(pairs))
	for _, p := range pairs {
		out = append(out, typeOf(p.self()), typeOf(p.self()+quietly))
	}
	return out
}

// tell lists the peers, and takes away those that are not installed.
func (w *world) tell(ctx context.Context, out io.Writer) {
	said := map[string]bool{}
	for i, peers := range []map[string]*peer{w.providers, w.callers} {
		w.order[i] = slices.DeleteFunc(w.order[i], func(name string) bool {
			p := peers[name]
			why := p.missing(ctx)
			if !said[name] {
				said[name] = true
				if why == "" {
					_, _ = fmt.Fprintf(out, "%-20s %s\n", name, p.version(ctx))
				} else {
					_, _ = fmt.Fprintf(out, "%-20s NOT INSTALLED: %s\n", name, why)
				}
			}
			return why != ""
		})
	}
}

// pairs reads the flag.
func (w *world) pairs(flag string) ([]pair, error) {
	var out []pair
	add := func(provider, caller string) error {
		p, c := w.providers[provider], w.callers[caller]
		if p == nil || c == nil {
			return fmt.Errorf("%w: -pairs: there is no %q or no %q", errUsage, provider, caller)
		}
		out = append(out, pair{p, c})
		return nil
	}
	if flag != "" && flag != "all" {
		for text := range strings.SplitSeq(flag, ",") {
			provider, caller, _ := strings.Cut(text, ":")
			if err := add(provider, caller); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	for _, provider := range w.order[0] {
		for _, caller := range w.order[1] {
			if w.suits(provider, caller) && (flag == "all" || w.chosen(provider, caller)) {
				_ = add(provider, caller) // both are there
			}
		}
		if provider == peerNghttpd {
			_ = add(provider, provider)
		}
	}
	return out, nil
}

// suits reports whether a caller speaks a protocol of a provider.
func (*world) suits(provider, caller string) bool {
	switch provider {
	case peerNghttpd:
		return false
	case peerGRPCGo, peerGRPCIO, peerGRPCJS:
		return strings.HasSuffix(caller, overGRPC) || strings.HasPrefix(caller, "grpc")
	default:
		return true
	}
}

// chosen reports whether a pair is in the table by default.
func (*world) chosen(provider, caller string) bool {
	return provider == peerOurs || caller == peerConnectGo+overGRPC
}

// play plays all cases of the pairs. The silences last beside everything else; they begin
// one after the other.
func (o *options) play(ctx context.Context, out io.Writer, s *stage, w *world, pairs []pair) *table {
	g := &game{opts: o, out: out, stage: s, world: w, table: newTable(pairs)}
	names := o.cases()
	var quiet sync.WaitGroup
	if i := slices.Index(names, echo.CaseSilence); i >= 0 {
		names = slices.Delete(names, i, i+1)
		for _, p := range pairs {
			opened := make(chan struct{})
			begun := sync.OnceFunc(func() { close(opened) })
			quiet.Go(func() {
				defer begun()
				g.play(ctx, p, quietly, []string{echo.CaseSilence}, begun)
			})
			<-opened
		}
	}
	for _, p := range pairs {
		g.play(ctx, p, "", names, func() {})
	}
	quiet.Wait()
	return g.table
}

// cases are those that the flags ask for.
func (o *options) cases() []string {
	names := echo.Cases()
	if o.only != "" {
		wanted := strings.Split(o.only, ",")
		names = slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(wanted, n) })
	}
	if o.silence == 0 {
		names = slices.DeleteFunc(names, func(n string) bool { return n == echo.CaseSilence })
	}
	return names
}

// game is a run of the table.
type game struct {
	opts  *options
	out   io.Writer
	stage *stage
	world *world
	table *table
}

// play plays cases of a pair, one after the other.
func (g *game) play(ctx context.Context, p pair, suffix string, names []string, quiet func()) {
	pl, err := newPlayer(g.stage, g.world, g.opts, p, suffix)
	if err != nil {
		for _, name := range names {
			g.table.set(p, name, result{state: red, text: err.Error()})
		}
		return
	}
	defer pl.close()
	pl.quiet = quiet
	for _, name := range names {
		r := result{text: "the run was ended"}
		if ctx.Err() == nil {
			r = pl.play(ctx, name)
		}
		g.table.set(p, name, r)
		if g.opts.verbose {
			g.table.say(g.out, p, name, r)
		}
	}
}
