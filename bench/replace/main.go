// Command replace measures what a replacement of a launched plugin costs its callers: it
// replaces a plugin again and again under constant unary load, of the host itself and of
// another plugin through the router, with streams open all the while.
//
// Usage:
//
//	replace [-n 50] [-streams 100] [-callers 8]
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

const (
	echoPath   = "/bench.v1.Echo/"
	echoSay    = echoPath + "Say"
	echoStream = echoPath + "Stream"
	grace      = 5 * time.Second
)

type text = wrapperspb.StringValue

func main() {
	run := measure
	if connectplugin.Launched() {
		run = plugin
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// plugin is the plugin that is replaced. Its streams go on until it is asked to stop.
func plugin(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle(echoSay, connect.NewUnaryHandler(echoSay, func(_ context.Context, req *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(req.Msg), nil
	}))
	mux.Handle(echoStream, connect.NewServerStreamHandler(echoStream, func(ctx context.Context, _ *connect.Request[text], s *connect.ServerStream[text]) error {
		if err := s.Send(wrapperspb.String("open")); err != nil {
			return err
		}
		select {
		case <-connectplugin.Stopping(ctx):
			return connect.NewError(connect.CodeUnavailable, errors.New("another instance takes over"))
		case <-ctx.Done():
			return ctx.Err()
		}
	}))
	return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Services: []connectplugin.PluginService{{Type: "echo", Version: "1.0.0", Path: echoPath, Handler: mux}},
	})
}

// tally counts what happened.
type tally struct {
	calls, failed, streams, told, cut atomic.Int64

	mu    sync.Mutex
	first error
}

func (t *tally) fail(err error) {
	t.failed.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		t.first = err
	}
}

func measure(ctx context.Context) error {
	replacements := flag.Int("n", 50, "replacements")
	streams := flag.Int("streams", 100, "open streams")
	callers := flag.Int("callers", 8, "callers of each kind")
	flag.Parse()
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
	if err != nil {
		return err
	}
	host, stop, err := startHost(ctx, authority)
	if err != nil {
		return err
	}
	defer stop()
	url, client, err := host.Launcher().GetServiceClient("echo", "echo")
	if err != nil {
		return err
	}
	user, err := enrol(ctx, host, authority)
	if err != nil {
		return err
	}
	defer func() { _ = user.Close() }()
	routed, err := user.Service(ctx, "echo", "")
	if err != nil {
		return err
	}
	load, end := context.WithCancel(ctx)
	defer end()
	var t tally
	var working sync.WaitGroup
	for range *callers {
		working.Go(func() { t.call(load, "direct", connect.NewClient[text, text](client, url+echoSay)) })
		working.Go(func() { t.call(load, "routed", connect.NewClient[text, text](routed.HTTPClient(), routed.BaseURL()+echoSay)) })
	}
	for range *streams {
		working.Go(func() { t.stream(load, connect.NewClient[text, text](routed.HTTPClient(), routed.BaseURL()+echoStream)) })
	}
	var took []time.Duration
	begun := time.Now()
	for range *replacements {
		from := time.Now()
		if err := host.Launcher().Replace(ctx, "echo"); err != nil {
			return err
		}
		took = append(took, time.Since(from))
	}
	all := time.Since(begun)
	end()
	working.Wait()
	return t.print(took, all)
}

func (t *tally) call(ctx context.Context, way string, c *connect.Client[text, text]) {
	for ctx.Err() == nil {
		_, err := c.CallUnary(ctx, connect.NewRequest(wrapperspb.String("x")))
		switch {
		case ctx.Err() != nil:
		case err != nil:
			t.fail(fmt.Errorf("%s call: %w", way, err))
		default:
			t.calls.Add(1)
		}
	}
}

// stream keeps one stream open, and opens it again when the plugin ends it.
func (t *tally) stream(ctx context.Context, c *connect.Client[text, text]) {
	for ctx.Err() == nil {
		s, err := c.CallServerStream(ctx, connect.NewRequest(wrapperspb.String("x")))
		if err != nil {
			if ctx.Err() == nil {
				t.fail(fmt.Errorf("open a stream: %w", err))
			}
			continue
		}
		opened := s.Receive()
		for s.Receive() { // until it ends
		}
		err = s.Err()
		_ = s.Close()
		switch {
		case ctx.Err() != nil:
		case !opened:
			t.fail(fmt.Errorf("stream: %w", err))
		case connect.CodeOf(err) == connect.CodeUnavailable && err.Error() == "unavailable: another instance takes over":
			t.streams.Add(1)
			t.told.Add(1)
		case connect.CodeOf(err) == connect.CodeUnavailable:
			t.streams.Add(1)
			t.cut.Add(1)
		default:
			t.fail(fmt.Errorf("stream: %w", err))
		}
	}
}

func (t *tally) print(took []time.Duration, all time.Duration) error {
	slices.Sort(took)
	fmt.Printf("%d replacements in %s: p50 %s, highest %s\n", len(took), all.Round(time.Millisecond),
		took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	fmt.Printf("%-34s %8d\n", "unary calls that succeeded", t.calls.Load())
	fmt.Printf("%-34s %8d\n", "calls and streams that failed", t.failed.Load())
	fmt.Printf("%-34s %8d\n", "streams that were told to move", t.told.Load())
	fmt.Printf("%-34s %8d\n", "streams that outlasted StopGrace", t.cut.Load())
	if t.failed.Load() > 0 {
		return fmt.Errorf("%d calls failed, the first with: %w", t.failed.Load(), t.first)
	}
	return nil
}

// startHost starts a host that launches this program as its plugin.
func startHost(ctx context.Context, authority *connectplugin.Authority) (host *connectplugin.Host, stop func(), err error) {
	host, err = connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"echo": {Provides: []string{"echo"}}, "user": {Requires: []string{"echo"}},
		}},
		Limits: connectplugin.Limits{RequestsPerSecond: 1e6, RequestBurst: 1e6},
	})
	if err != nil {
		return nil, nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- host.Serve(life, l) }()
	for host.Addr() == "" {
		time.Sleep(time.Millisecond)
	}
	path, err := os.Executable()
	if err != nil {
		end()
		return nil, nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		end()
		return nil, nil, err
	}
	sum := sha256.Sum256(program)
	host.Launcher().Configure(map[string]connectplugin.PluginSpec{
		"echo": {BinaryPath: path, Checksum: hex.EncodeToString(sum[:]), Provides: []string{"echo"}, StopGrace: grace},
	})
	return host, func() {
		end()
		<-served
	}, nil
}

// enrol connects a plugin that calls the other through the router.
func enrol(ctx context.Context, host *connectplugin.Host, authority *connectplugin.Authority) (*connectplugin.Client, error) {
	tls, err := authority.PluginTLS("user")
	if err != nil {
		return nil, err
	}
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: "https://" + host.Addr(), SelfID: "user", TLS: tls,
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "echo"}}},
	})
	if err != nil {
		return nil, err
	}
	return c, c.Connect(ctx)
}
