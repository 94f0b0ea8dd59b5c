//go:build unix

package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	shortenerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1"
	storagev1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/storage/v1"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/storage/v1/storagev1connect"
)

const (
	busyEvery   = 100 * time.Millisecond
	unknownEach = 7  // of so many calls, one asks for a code that nobody was given
	deniedEach  = 50 // and one is denied by policy
)

// offer starts the page, and says how to look at the host.
func (d *demo) offer(ctx context.Context) error {
	link, err := d.stack.StartPage(ctx)
	if err != nil {
		return err
	}

	d.link = link
	d.explain()

	return nil
}

// explain says how to look at the host.
func (d *demo) explain() {
	d.sayf("look at it while it runs:\n"+
		"         in a browser  %s\n"+
		"                       (the link works once, within ten minutes)\n"+
		"         as a scrape   curl -s %s | grep rpc_server_call_duration\n"+
		"         in a shell    %s\n"+
		"                       (or services, calls, limits, tail, watch in place of plugins)\n"+
		"         in the logs   tail -f %s\n"+
		"                       (one lies beside it for each plugin, and %s)",
		d.link, d.stack.Metrics, strings.Join(d.stack.ConsoleCommand("plugins"), " "),
		d.stack.LogFile("host"), filepath.Base(d.stack.PolicyFile()))
}

// look shows what an operator sees.
func (d *demo) look(ctx context.Context) error {
	for _, what := range []string{"plugins", "calls"} {
		table, err := d.stack.Console(ctx, what)
		if err != nil {
			return err
		}

		d.sayf("$ connectpluginctl %s\n%s", what, indented(table))
	}

	return nil
}

func indented(text string) string {
	return "         " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n         ")
}

// stay keeps the application busy, with calls that are answered, fail and are denied, until time is up or
// somebody ends it.
func (d *demo) stay(ctx context.Context) error {
	if d.stays <= 0 {
		return nil
	}

	d.done = true // nothing is missing when it is ended now
	d.sayf("everything goes on for %v; Ctrl-C ends it", d.stays)
	d.explain()

	ctx, cancel := context.WithTimeout(ctx, d.stays)
	defer cancel()

	tick, look := time.NewTicker(busyEvery), time.NewTicker(keepEvery)
	defer tick.Stop()
	defer look.Stop()

	kept := keeper{stack: d.stack, sayf: d.sayf, away: map[string]string{}}
	defer kept.end()

	for i := 0; ; {
		select {
		case <-tick.C:
			i++
			d.busy(ctx, i)
		case <-look.C:
			kept.look()
		case <-ctx.Done():
			return nil
		}
	}
}

// busy makes a call. How it ends is for others to see.
func (d *demo) busy(ctx context.Context, i int) {
	code := d.early.codes[i%len(d.early.codes)]

	switch {
	case i%deniedEach == 0:
		storage := storagev1connect.NewStorageServiceClient(d.caller.client.HTTPClient(), d.stack.URL+"/services/storage/-")
		_, _ = storage.Get(ctx, &storagev1.GetRequest{Key: code})
	case i%unknownEach == 0:
		_, _ = d.caller.shortener.Resolve(ctx, &shortenerv1.ResolveRequest{Code: fmt.Sprintf("nobody%d", i)})
	default:
		_, _ = d.caller.shortener.Resolve(ctx, &shortenerv1.ResolveRequest{Code: code})
	}
}
