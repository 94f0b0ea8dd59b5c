#!/usr/bin/env bash
# Guess: a plugin that yaegi interprets, as Traefik's plugins are, is to its host what it is compiled: a middleware whose ResponseWriter has Flush and Unwrap
# lets streams through, errors.Is and errors.As find what an error wraps, and what has MarshalJSON or UnmarshalJSON is written and read by it.
# Seen: github.com/traefik/yaegi v0.16.1 hands the host a value of an interpreted type as the one interface that is asked for, with that interface's methods
# and no other. A ResponseWriter is no http.Flusher any more and has no Unwrap: behind such a middleware each server stream of connectrpc.com/connect v1.21.1
# fails with internal, "does not implement http.Flusher", in each protocol, while unary calls succeed. An error has Error alone: errors.Is, errors.As and
# errors.Unwrap find nothing in it, and fmt.Errorf with %w writes "%!w(…)", within the plugin as well, since fmt and errors are the host's. encoding/json
# goes by the fields: MarshalJSON is not called, {"t":{}} for a number with one, and UnmarshalJSON is neither, an error. The same file compiled does all of it.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
mkdir plugin
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	github.com/traefik/yaegi v0.16.1
	google.golang.org/protobuf v1.36.12
)
EOT
cat > plugin/plugin.go <<'EOT'
package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Flush() { r.ResponseWriter.(http.Flusher).Flush() }

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// New is a middleware that looks at the status.
func New(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(&recorder{w, 200}, r) })
}

type failure struct{ err error }

func (f *failure) Error() string { return "plugin: " + f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

func (f *failure) Timeout() bool { return true }

// Fail returns an error that wraps io.EOF.
func Fail() error { return &failure{io.EOF} }

// Within says whether the plugin finds io.EOF in its own error, once it has wrapped it again.
func Within() bool { return errors.Is(fmt.Errorf("again: %w", Fail()), io.EOF) }

type celsius float64

func (c celsius) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprintf("%.1f C", float64(c))) }

// Write writes a value that has MarshalJSON.
func Write() string {
	text, err := json.Marshal(map[string]any{"t": celsius(3)})
	return fmt.Sprint(string(text), " ", err)
}

type duration struct{ time.Duration }

func (d *duration) UnmarshalJSON(text []byte) (err error) {
	var s string
	if err := json.Unmarshal(text, &s); err == nil {
		d.Duration, err = time.ParseDuration(s)
	}
	return err
}

// Read reads a configuration with a duration.
func Read() string {
	var config struct {
		Wait duration `json:"wait"`
	}
	err := json.Unmarshal([]byte(`{"wait":"3s"}`), &config)
	return fmt.Sprint(config.Wait.Duration, ", an error: ", err != nil)
}
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"

	"connectrpc.com/connect"
	"finding/plugin"
	"github.com/traefik/yaegi/interp"
	"github.com/traefik/yaegi/stdlib"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type (
	text  = wrapperspb.StringValue
	parts struct {
		wrap        func(http.Handler) http.Handler
		fail        func() error
		within      func() bool
		write, read func() string
	}
)

func see(how string, p parts) (seen []string) {
	say := func(format string, args ...any) { seen = append(seen, how+": "+fmt.Sprintf(format, args...)) }
	mux := http.NewServeMux()
	mux.Handle("/e.S/One", connect.NewUnaryHandler("/e.S/One", func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(&text{}), nil
	}))
	mux.Handle("/e.S/Many", connect.NewServerStreamHandler("/e.S/Many", func(_ context.Context, _ *connect.Request[text], s *connect.ServerStream[text]) error {
		return s.Send(&text{})
	}))
	mux.HandleFunc("/flush", func(w http.ResponseWriter, _ *http.Request) {
		_, flusher := w.(http.Flusher)
		say("a Flusher %t, ResponseController.Flush %v", flusher, http.NewResponseController(w).Flush())
	})
	s := httptest.NewUnstartedServer(p.wrap(mux))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	must(s.Client().Get(s.URL + "/flush")).Body.Close()
	for protocol, option := range map[string]connect.ClientOption{"Connect": connect.WithClientOptions(), "gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb()} {
		_, err := connect.NewClient[text, text](s.Client(), s.URL+"/e.S/One", option).CallUnary(context.Background(), connect.NewRequest(&text{}))
		stream := must(connect.NewClient[text, text](s.Client(), s.URL+"/e.S/Many", option).CallServerStream(context.Background(), connect.NewRequest(&text{})))
		n := 0
		for stream.Receive() {
			n++
		}
		say("%s: unary %v, stream %d message, %v", protocol, err, n, stream.Err())
	}
	slices.Sort(seen)
	err := p.fail()
	var timeout interface{ Timeout() bool }
	say("error %q, Is %t, As %t, Unwrap %v, in the plugin %t", err, errors.Is(err, io.EOF), errors.As(err, &timeout), errors.Unwrap(err), p.within())
	say("writes %s", p.write())
	say("reads %s", p.read())
	return seen
}

func main() {
	i := interp.New(interp.Options{})
	if err := i.Use(stdlib.Symbols); err != nil {
		panic(err)
	}
	must(i.Eval(string(must(os.ReadFile("plugin/plugin.go")))))
	get := func(name string) any { return must(i.Eval("plugin." + name)).Interface() }
	seen := see("compiled", parts{plugin.New, plugin.Fail, plugin.Within, plugin.Write, plugin.Read})
	seen = append(seen, see("interpreted", parts{
		get("New").(func(http.Handler) http.Handler), get("Fail").(func() error), get("Within").(func() bool), get("Write").(func() string), get("Read").(func() string),
	})...)
	const none = "stream 0 message, internal: stdlib._net_http_ResponseWriter does not implement http.Flusher"
	want := []string{
		"compiled: Connect: unary <nil>, stream 1 message, <nil>",
		"compiled: a Flusher true, ResponseController.Flush <nil>",
		"compiled: gRPC-Web: unary <nil>, stream 1 message, <nil>",
		"compiled: gRPC: unary <nil>, stream 1 message, <nil>",
		`compiled: error "plugin: EOF", Is true, As true, Unwrap EOF, in the plugin true`,
		`compiled: writes {"t":"3.0 C"} <nil>`,
		"compiled: reads 3s, an error: false",
		"interpreted: Connect: unary <nil>, " + none,
		"interpreted: a Flusher false, ResponseController.Flush feature not supported",
		"interpreted: gRPC-Web: unary <nil>, " + none,
		"interpreted: gRPC: unary <nil>, " + none,
		`interpreted: error "plugin: EOF", Is false, As false, Unwrap <nil>, in the plugin false`,
		`interpreted: writes {"t":{}} <nil>`,
		"interpreted: reads 0s, an error: true",
	}
	for _, line := range seen {
		fmt.Println(line)
	}
	if !slices.Equal(seen, want) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/traefik/yaegi connectrpc.com/connect
GOTOOLCHAIN=local timeout 120 go run .
