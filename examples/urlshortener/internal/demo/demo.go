//go:build unix

// Package demo runs the whole example in processes of their own and checks every
// answer.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/batch"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/metrics"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/stack"
)

// Config configures [Run].
type Config struct {
	// URLs are shortened and resolved. At least 10.
	URLs []string
	// Out is what people watch.
	Out io.Writer
	// Bin is where stack.Build has built the programs. Empty builds them.
	Bin string
	// Stay is how long everything goes on at the end, for whoever looks. Zero is not at all.
	Stay time.Duration
}

// heldBack is the part of the URLs that is shortened only when the logger is
// gone: one of so many.
const heldBack = 10

// ErrFailed is returned by [Run] where an answer was wrong or something was left
// behind.
var ErrFailed = errors.New("the demo failed")

// Run runs the demo. Whatever happens, it stops all that it started and removes
// its temporary directory before it returns.
func Run(ctx context.Context, cfg Config) error {
	dir, err := os.MkdirTemp("", "urlshortener-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}

	d := &demo{out: cfg.Out, start: time.Now(), stays: cfg.Stay, stack: &stack.Stack{Dir: dir, Bin: cfg.Bin}}
	early := len(cfg.URLs) - len(cfg.URLs)/heldBack
	d.early, d.late = links{urls: cfg.URLs[:early]}, links{urls: cfg.URLs[early:]}

	err = d.run(ctx)
	if ctx.Err() != nil && !d.done { // whatever else failed, failed because of it
		err = fmt.Errorf("interrupted: %w", ctx.Err())

		d.sayf("interrupted: cleaning up")
	}

	return errors.Join(err, d.finish())
}

// links are URLs and, once they were shortened, their codes.
type links struct{ urls, codes []string }

// demo is one run.
type demo struct {
	// Fixed at creation.
	start  time.Time
	stays  time.Duration
	stack  *stack.Stack
	caller *caller // nil before the stack is up

	launched launched // of the second act

	host        measured // of the first act
	link        string   // to the page
	early, late links
	done        bool // and only stays up

	phases     []*batch.Phase // what the demo saw of its calls
	rows       []batch.Row    // what the metrics of the hosts say of them
	seen       metrics.Calls  // and of all together
	unmeasured error          // where the two differ

	mu  sync.Mutex
	out io.Writer
}

// run goes through the demo. Calls that fail are counted, and the demo goes on.
func (d *demo) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.prepare, d.launch, d.offer, d.shell, d.feed, d.loseLogger, d.regainLogger, d.restartStorage, d.look, d.platform, d.stay,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}

	return nil
}

func (d *demo) prepare(ctx context.Context) error {
	if d.stack.Bin == "" {
		d.sayf("building the programs (the first time takes a minute or two)")

		d.stack.Bin = filepath.Join(d.stack.Dir, "bin")
		if err := stack.Build(ctx, d.stack.Bin); err != nil {
			return err
		}
	}

	d.sayf("a fresh authority and secrets in %s", d.stack.Dir)

	return d.stack.Enrol(ctx)
}

func (d *demo) launch(ctx context.Context) error {
	if err := d.stack.StartHost(ctx); err != nil {
		return err
	}

	d.host.url = d.stack.Metrics
	d.sayf("host: %s, TLS 1.3", d.stack.URL)

	for _, name := range []string{"logger", "storage", "api"} {
		if err := d.stack.StartPlugin(ctx, name); err != nil {
			return err
		}
	}

	var err error
	if d.caller, err = connectCaller(ctx, d.stack.URL, d.stack.PluginDir("demo"), d.sayf); err != nil {
		return err
	}

	return d.caller.await(ctx, available)
}

// shell does once what people do.
func (d *demo) shell(ctx context.Context) error {
	code, err := d.stack.Shortener(ctx, "shorten", d.early.urls[0])
	if err != nil {
		return err
	}

	d.sayf("$ shortener shorten %.60s\n         %s", d.early.urls[0], code)

	url, err := d.stack.Shortener(ctx, "resolve", code)
	if err != nil {
		return err
	}

	d.sayf("$ shortener resolve %s\n         %.60s", code, url)

	if url != d.early.urls[0] {
		return fmt.Errorf("%w: the shell got %q, want %q", ErrFailed, url, d.early.urls[0])
	}

	return nil
}

// feed shortens and resolves most of the URLs.
func (d *demo) feed(ctx context.Context) error {
	d.shorten(ctx, "shorten", &d.early)
	d.resolve(ctx, "resolve", d.early)

	return ctx.Err()
}

// loseLogger kills the logger and shows that the api goes on: while nobody has
// noticed, and when it is degraded.
func (d *demo) loseLogger(ctx context.Context) error {
	d.sayf("kill -KILL logger")
	d.stack.Kill("logger")

	killed, noticed := time.Now(), make(chan error, 1)

	var after time.Duration // until it was noticed; written before noticed

	go func() {
		err := d.caller.await(ctx, degraded)
		after = time.Since(killed)
		noticed <- err
	}()

	var lost error

	d.measure(ctx, &d.host, "resolve, logger killed", func() *batch.Phase {
		meanwhile := &batch.Phase{}

		for {
			meanwhile = meanwhile.Add(batch.Resolve(ctx, d.caller.shortener, d.early.codes, d.early.urls, func(int) {}))
			select {
			case lost = <-noticed:
				return meanwhile
			default:
				d.sayf("  resolve: %d calls since the logger was killed", meanwhile.Calls())
			}
		}
	})

	if lost != nil {
		return lost
	}

	d.sayf("  the host noticed after %.1f s; the api goes on without its logger", after.Seconds())
	d.shorten(ctx, "shorten, api degraded", &d.late)
	d.resolve(ctx, "resolve, api degraded", d.late)

	dropped, err := d.caller.dropped(ctx)
	d.sayf("  log entries that the api dropped meanwhile: %d", dropped)

	return err
}

// regainLogger starts the logger again and shows that entries arrive again.
func (d *demo) regainLogger(ctx context.Context) error {
	d.sayf("logger started again")

	if err := d.stack.StartPlugin(ctx, "logger"); err != nil {
		return err
	}

	if err := d.caller.await(ctx, available); err != nil {
		return err
	}

	d.resolve(ctx, "resolve, logger back", d.late)

	total, err := d.caller.awaitEntries(ctx)
	if err != nil {
		return err
	}

	d.sayf("  log entries that arrived at the new logger: %d", total)

	return nil
}

// restartStorage restarts the storage, which must not have lost anything.
func (d *demo) restartStorage(ctx context.Context) error {
	d.sayf("storage: stopped and started again")

	if err := d.stack.StopOne("storage"); err != nil {
		return err
	}

	if err := d.caller.await(ctx, degraded); err != nil {
		return err
	}

	if err := d.stack.StartPlugin(ctx, "storage"); err != nil {
		return err
	}

	if err := d.caller.await(ctx, available); err != nil {
		return err
	}

	everything := links{urls: slices.Concat(d.early.urls, d.late.urls), codes: slices.Concat(d.early.codes, d.late.codes)}
	d.resolve(ctx, "resolve, storage restarted", everything)

	return ctx.Err()
}

// finish stops everything, removes the directory, and prints what it came to.
func (d *demo) finish() error {
	if d.caller != nil {
		d.caller.close()
	}

	d.sayf("stopping everything (SIGTERM)")
	errs := []error{d.stack.Stop(), os.RemoveAll(d.stack.Dir)}
	processes, files := d.stack.Left()+d.launched.left(), filesBelow(d.stack.Dir)

	if len(d.rows) > 0 {
		_, _ = fmt.Fprintln(d.out, "\nas the metrics of the hosts say:")

		errs = append(errs, batch.PrintRows(d.out, "median ≤\tp99 ≤", append(d.rows, rowOf("total", d.seen))...), d.unmeasured)
	}

	for _, p := range d.phases {
		errs = append(errs, p.Err())
	}

	_, _ = fmt.Fprintf(d.out, "\nprocesses left over: %d   files left over: %d   took %.1f s\n",
		processes, files, time.Since(d.start).Seconds())

	if processes+files > 0 {
		errs = append(errs, fmt.Errorf("%w: %d processes and %d files are left over", ErrFailed, processes, files))
	}

	return errors.Join(errs...)
}

func filesBelow(dir string) int {
	n := 0
	_ = filepath.WalkDir(dir, func(_ string, _ fs.DirEntry, err error) error {
		if err == nil {
			n++
		}

		return nil
	})

	return n
}

func (d *demo) shorten(ctx context.Context, name string, l *links) {
	d.measure(ctx, &d.host, name, func() (phase *batch.Phase) {
		l.codes, phase = batch.Shorten(ctx, d.caller.shortener, l.urls, d.progress(name, len(l.urls)))

		return phase
	})
}

func (d *demo) resolve(ctx context.Context, name string, l links) {
	d.measure(ctx, &d.host, name, func() *batch.Phase {
		return batch.Resolve(ctx, d.caller.shortener, l.codes, l.urls, d.progress(name, len(l.urls)))
	})
}

// progress tells at every quarter how far a phase is.
func (d *demo) progress(name string, n int) batch.Progress {
	const quarters = 4

	return func(done int) {
		for i := 1; i <= quarters; i++ {
			if done == n*i/quarters {
				d.sayf("  %s: %d of %d", name, done, n)
			}
		}
	}
}

func (d *demo) sayf(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _ = fmt.Fprintf(d.out, "%6.1f s  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}
