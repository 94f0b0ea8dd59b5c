// Package fields_test measures what header fields and trailers of a call through a host cost.
package fields_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

const (
	procedure = "/fields.v1.Fields/Call"
	named     = "X-Named" // how many names the caller wants in the trailer of the answer
	usual     = 10        // fields that an answer has besides, of the 1,000 that there may be
	free      = 1 << 30   // of what a benchmark spends
)

// Each line is a call with so many fields beside a plain one, which takes turns with it: of the time that it took, and of
// the processor time of caller, host and provider together.
func BenchmarkFieldsOfACall(b *testing.B) {
	call := start(b)
	for _, n := range []int{64, 700, 900} { // for more there is no room in 32 KiB
		b.Run(fmt.Sprintf("header fields=%d", n), func(b *testing.B) { compare(b, call, n, 0) })
	}
	for _, n := range []int{64, 700, 1_000 - usual} {
		b.Run(fmt.Sprintf("trailer names=%d", n), func(b *testing.B) { compare(b, call, 0, n) })
	}
}

type caller func(b *testing.B, fields, names int)

func compare(b *testing.B, call caller, fields, names int) {
	b.Helper()
	call(b, fields, names) // the first one opens what the others use
	var plain, wide spent
	for b.Loop() {
		plain.add(b, call, 0, 0)
		wide.add(b, call, fields, names)
	}
	b.ReportMetric(float64(wide.time.Microseconds())/float64(b.N), "µs/call")
	b.ReportMetric(float64(wide.time)/float64(plain.time), "x-plain")
	b.ReportMetric(float64(wide.cpu)/float64(plain.cpu), "x-plain-CPU")
	b.ReportMetric(0, "ns/op") // of both
}

// spent is what calls of a kind took.
type spent struct{ time, cpu time.Duration }

func (s *spent) add(b *testing.B, call caller, fields, names int) {
	b.Helper()
	const each = 4 // calls of a kind, until it is the turn of the other
	began, used := time.Now(), processor(b)
	for range each {
		call(b, fields, names)
	}
	s.time += time.Since(began) / each
	s.cpu += (processor(b) - used) / each
}

// processor is what this process has used.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// start starts a host, a provider and a caller.
func start(b *testing.B) caller {
	b.Helper()
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
	if err != nil {
		b.Fatal(err)
	}
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"provider": {Provides: []string{"fields"}, AllowOwnAddress: true}, "caller": {Requires: []string{"fields"}},
		}},
		Limits: connectplugin.Limits{RequestsPerSecond: free, RequestBurst: free},
	})
	if err != nil {
		b.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	at, ready := "https://"+l.Addr().String(), make(chan struct{})
	beside(b, func(ctx context.Context) error { return host.Serve(ctx, l) })
	beside(b, func(ctx context.Context) error {
		return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:      connectplugin.ClientConfig{HostURL: at, SelfID: "provider", TLS: certificate(b, authority, "provider")},
			Services:    []connectplugin.PluginService{{Type: "fields", Version: "1.0.0", Path: "/fields.v1.Fields/", Handler: answers()}},
			OnConnected: func(context.Context, *connectplugin.Client) error { close(ready); return nil },
		})
	})
	<-ready
	client, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: at, SelfID: "caller", TLS: certificate(b, authority, "caller"),
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "fields"}}},
	})
	if err == nil {
		err = client.Connect(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close() })
	conn, err := client.Service(b.Context(), "fields", "")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	to := connect.NewClient[emptypb.Empty, emptypb.Empty](conn.HTTPClient(), conn.BaseURL()+procedure, connect.WithGRPC())
	return func(b *testing.B, fields, names int) {
		b.Helper()
		req := connect.NewRequest(new(emptypb.Empty))
		req.Header().Set(named, fmt.Sprint(names))
		fill(req.Header(), fields)
		resp, err := to.CallUnary(b.Context(), req)
		if err != nil {
			b.Fatal(err)
		}
		if got := len(resp.Trailer()); got < names {
			b.Fatalf("%d names of %d", got, names)
		}
	}
}

func fill(h http.Header, n int) {
	for i := range n {
		h["X"+strconv.FormatInt(int64(i), 36)] = []string{""}
	}
}

// answers puts as many names into the trailer as it is asked for.
func answers() http.Handler {
	return connect.NewUnaryHandler(procedure, func(_ context.Context, req *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
		var n int
		if _, err := fmt.Sscan(req.Header().Get(named), &n); err != nil {
			return nil, err
		}
		resp := connect.NewResponse(new(emptypb.Empty))
		fill(resp.Trailer(), n)
		return resp, nil
	})
}

// beside runs something until the benchmark is over.
func beside(b *testing.B, run func(context.Context) error) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			b.Error(err)
		}
	})
}

func certificate(b *testing.B, authority *connectplugin.Authority, name string) *tls.Config {
	b.Helper()
	cfg, err := authority.PluginTLS(name)
	if err != nil {
		b.Fatal(err)
	}
	return cfg
}
