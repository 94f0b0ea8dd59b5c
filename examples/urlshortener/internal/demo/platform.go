//go:build unix

package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginotel"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1/shortenerv1connect"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/batch"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/metrics"
)

// The second act: the demo is a host itself, and launches the same programs.

const (
	replacements = 3
	programMode  = 0o700
)

// launched is the host of the second act, and what is known of its plugins.
type launched struct {
	host      *connectplugin.Host // nil before it serves
	measured  measured
	client    *connectplugin.Client
	shortener shortenerv1connect.ShortenerServiceClient
	specs     map[string]connectplugin.PluginSpec
	pids      map[int]bool // of every process that was seen
	links     links
}

// platform launches the programs, crashes one, replaces one under load, and offers one that
// somebody tampered with.
func (d *demo) platform(ctx context.Context) error {
	d.sayf("the second act: the demo is the host, and launches the plugins itself")

	stop, err := d.launched.serve(ctx)
	if stop == nil {
		return err
	}

	for _, step := range []func(context.Context) error{d.launchAll, d.crash, d.replace, d.tamper} {
		if err != nil {
			break
		}

		err = step(ctx)
	}

	return errors.Join(err, stop())
}

// serve starts the host.
func (l *launched) serve(ctx context.Context) (stop func() error, err error) {
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
	if err != nil {
		return nil, err
	}

	observer, err := metrics.New()
	if err != nil {
		return nil, err
	}

	host, err := newHost(authority, observer)
	if err != nil {
		return nil, err
	}

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}

	life, end := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- host.Serve(life, listener) }()

	l.host, l.pids = host, map[int]bool{}
	stop = func() error {
		if l.client != nil {
			_ = l.client.Close()
		}

		end()

		return errors.Join(<-served, observer.Shutdown(context.WithoutCancel(ctx)))
	}

	return stop, l.connect(ctx, authority, "https://"+listener.Addr().String())
}

// newHost makes the host of the second act.
func newHost(authority *connectplugin.Authority, observer *connectpluginotel.Prometheus) (*connectplugin.Host, error) {
	broker := connectplugin.NewCapabilityBroker("")
	broker.RegisterCapability(newEntries())

	return connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, CapabilityBroker: broker, Observer: observer, MetricsAddr: "127.0.0.1:0", Metrics: observer.Handler(),
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"logger":  {Provides: []string{"logger"}},
			"storage": {Provides: []string{"storage"}, Capabilities: []string{"logger"}},
			"api":     {Provides: []string{"shortener"}, Requires: []string{"storage", "logger"}},
			"demo":    {Requires: []string{"shortener"}},
		}},
	})
}

// connect makes the demo a plugin of the host. Who connects to a listener that nobody serves yet waits.
func (l *launched) connect(ctx context.Context, authority *connectplugin.Authority, url string) error {
	own, err := authority.PluginTLS("demo")
	if err != nil {
		return err
	}

	l.client, err = connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: url, SelfID: "demo", TLS: own,
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "shortener"}}},
	})
	if err != nil {
		return err
	}

	if err := l.client.Connect(ctx); err != nil {
		return err
	}

	l.measured.url = "http://" + l.host.MetricsAddr() + "/metrics" // it serves

	return nil
}

// launchAll launches the plugins, each after those that it needs.
func (d *demo) launchAll(ctx context.Context) error {
	l := &d.launched
	dir := filepath.Join(d.stack.Dir, "launched")

	if err := os.Mkdir(dir, programMode); err != nil {
		return fmt.Errorf("launch: %w", err)
	}

	if err := l.specify(d.stack.Bin, dir); err != nil {
		return err
	}

	l.host.Launcher().Configure(l.specs)

	begun := time.Now()
	if err := l.host.Launcher().Start(ctx); err != nil {
		return err
	}

	d.sayf("  logger, storage and api launched, verified and healthy after %.2f s", time.Since(begun).Seconds())
	l.note()

	conn, err := l.client.Service(ctx, "shortener", "")
	if err != nil {
		return err
	}

	l.shortener = shortenerv1connect.NewShortenerServiceClient(conn.HTTPClient(), conn.BaseURL())
	l.links = links{urls: d.late.urls}

	d.measure(ctx, &l.measured, "shorten, launched api", func() (phase *batch.Phase) {
		l.links.codes, phase = batch.Shorten(ctx, l.shortener, l.links.urls, func(int) {})

		return phase
	})

	return ctx.Err()
}

// specify says how each program is launched: exactly as it was built, in a directory.
func (l *launched) specify(bin, dir string) error {
	l.specs = map[string]connectplugin.PluginSpec{}

	for name, provides := range map[string]string{"logger": "logger", "storage": "storage", "api": "shortener"} {
		path := filepath.Join(bin, name)

		program, err := os.ReadFile(path) //nolint:gosec // what was built
		if err != nil {
			return fmt.Errorf("launch: %w", err)
		}

		sum := sha256.Sum256(program)
		l.specs[name] = connectplugin.PluginSpec{
			BinaryPath: path, Checksum: hex.EncodeToString(sum[:]), Provides: []string{provides}, Dir: dir, ReadyTimeout: awaitTimeout,
		}
	}

	return nil
}

// crash kills the storage; the host starts it again, and nothing is lost.
func (d *demo) crash(ctx context.Context) error {
	l := &d.launched
	before := l.status("storage")
	d.sayf("kill -KILL storage (pid %d)", before.Pid)

	killed := time.Now()
	if err := syscall.Kill(before.Pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill: %w", err)
	}

	err := until(ctx, "the storage runs again", func() bool {
		now := l.status("storage")

		return now.State == connectplugin.LaunchRunning && now.Pid != before.Pid
	})
	if err != nil {
		return err
	}

	d.sayf("  the host has started it again (pid %d) after %.2f s: %s", l.status("storage").Pid, time.Since(killed).Seconds(),
		l.status("storage").LastExit.Reason)
	l.note()

	first := links{urls: l.links.urls[:1], codes: l.links.codes[:1]}
	err = until(ctx, "the api finds the storage again", func() bool {
		l.measured.made++

		return l.resolve(ctx, first).Err() == nil
	})
	d.measure(ctx, &l.measured, "resolve, storage crashed", func() *batch.Phase { return l.resolve(ctx, l.links) })

	return err
}

// replace replaces the api again and again while it is called.
func (d *demo) replace(ctx context.Context) error {
	l := &d.launched

	var err error

	d.measure(ctx, &l.measured, fmt.Sprintf("resolve, api replaced %d times", replacements), func() *batch.Phase {
		load, end := context.WithCancel(ctx)
		calls := make(chan *batch.Phase)

		go func() {
			sum := &batch.Phase{}
			for load.Err() == nil {
				sum = sum.Add(l.resolve(ctx, l.links)) // to its end: each of its calls counts
			}
			calls <- sum
		}()

		err = d.replaceAll(ctx)

		end()

		return <-calls
	})

	return err
}

func (d *demo) replaceAll(ctx context.Context) error {
	l := &d.launched

	for range replacements {
		before := l.status("api").Pid
		if err := l.host.Launcher().Replace(ctx, "api"); err != nil {
			return err
		}

		l.note()
		d.sayf("  api replaced: pid %d, then %d", before, l.status("api").Pid)
	}

	return nil
}

// tamper offers the launcher an api with one byte more than it was released with.
func (d *demo) tamper(ctx context.Context) error {
	l := &d.launched
	spec := l.specs["api"]

	program, err := os.ReadFile(spec.BinaryPath)
	if err != nil {
		return fmt.Errorf("tamper: %w", err)
	}

	spec.BinaryPath = filepath.Join(d.stack.Dir, "launched", "api")
	if err := os.WriteFile(spec.BinaryPath, append(program, 0), programMode); err != nil { //nolint:gosec // it has to be executable
		return fmt.Errorf("tamper: %w", err)
	}

	before := l.status("api").Pid
	l.host.Launcher().Configure(map[string]connectplugin.PluginSpec{"api": spec})

	err = l.host.Launcher().Replace(ctx, "api")
	if !errors.Is(err, connectplugin.ErrBinaryRefused) || l.status("api").Pid != before {
		return fmt.Errorf("%w: a tampered program: %w", ErrFailed, err)
	}

	d.sayf("  a tampered api is refused, and pid %d goes on: %v", before, connectplugin.ErrBinaryRefused)
	d.measure(ctx, &l.measured, "resolve, tampered api refused", func() *batch.Phase { return l.resolve(ctx, l.links) })

	return ctx.Err()
}

func (l *launched) resolve(ctx context.Context, links links) *batch.Phase {
	return batch.Resolve(ctx, l.shortener, links.codes, links.urls, func(int) {})
}

// status returns what the launcher knows of a plugin.
func (l *launched) status(name string) connectplugin.LaunchStatus {
	for _, p := range l.host.Plugins() {
		if p.Launch != nil && p.Launch.Name == name {
			return *p.Launch
		}
	}

	return connectplugin.LaunchStatus{}
}

// note remembers the processes that run now.
func (l *launched) note() {
	for _, p := range l.host.Plugins() {
		if p.Launch != nil && p.Launch.Pid != 0 {
			l.pids[p.Launch.Pid] = true
		}
	}
}

// left returns how many of the processes are still there.
func (l *launched) left() int {
	n := 0

	for pid := range l.pids {
		if syscall.Kill(pid, 0) == nil {
			n++
		}
	}

	return n
}

// until waits for a condition.
func until(ctx context.Context, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()

	for !holds() {
		select {
		case <-time.After(pollEvery / 10): //nolint:mnd // often enough to measure
		case <-ctx.Done():
			return fmt.Errorf("%w: never: %s: %w", ErrFailed, what, ctx.Err())
		}
	}

	return nil
}
