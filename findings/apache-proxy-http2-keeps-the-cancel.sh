#!/usr/bin/env bash
# Guess: Apache's mod_proxy_http2 before a service in h2c, which carries trailers and the messages of a stream as they come, tells the service when the
# caller has gone: it resets the stream, and the handler's context ends.
# Seen: Apache 2.4.71 (Debian 12), caller and service of connectrpc.com/connect v1.21.1, in Connect, gRPC and gRPC-Web: when a caller cancels a unary call
# or leaves a server stream while the service is silent, the service is not told. It is when it sends the next time, or when Apache's Timeout has passed.
# That also ends a watch that nobody left, as internal: the stream goes on with Apache's page in HTML, "<!DOCTYPE", which is read as the head of a message
# of 558,124,867 bytes. Whoever raises it for such watches keeps what was left as long. With http:// in place of h2c:// (mod_proxy_http, in
# Connect) the service is not told, either. Without Apache it is in each case.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
pid=
trap 'for pid in "$dir"/*.pid; do [ ! -s "$pid" ] || kill "$(cat "$pid")" 2> /dev/null || true; done; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
chmod 755 .
apt-get download apache2-bin=2.4.71-1~deb12u1 libapr1=1.7.2-3+deb12u1 libaprutil1=1.6.3-1+deb12u1 libnghttp2-14=1.52.0-1+deb12u3 > /dev/null 2>&1
for package in *.deb; do dpkg-deb -x "$package" root; done
LD_LIBRARY_PATH="$(echo "$dir"/root/usr/lib/*-linux-gnu)"
export LD_LIBRARY_PATH
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
)

type empty = emptypb.Empty

const one, watch, late = "/e.E/One", "/e.E/Watch", "/e.E/Late"

// told is what a handler learnt of its caller's end.
var told = make(chan string, 1)

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		told <- "told"
	case <-time.After(3 * time.Second):
		told <- "not told"
	}
	return ctx.Err()
}

func handlers() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(one, connect.NewUnaryHandler(one, func(ctx context.Context, _ *connect.Request[empty]) (*connect.Response[empty], error) {
		return connect.NewResponse(&empty{}), pause(ctx)
	}))
	// stream sends, stays silent for a while where it is told to, sends again and waits.
	stream := func(procedure string, silence time.Duration) {
		mux.Handle(procedure, connect.NewServerStreamHandler(procedure, func(ctx context.Context, _ *connect.Request[empty], s *connect.ServerStream[empty]) error {
			if err := s.Send(&empty{}); err != nil {
				return err
			}
			if silence > 0 {
				time.Sleep(silence)
				s.Send(&empty{})
			}
			return pause(ctx)
		}))
	}
	stream(watch, 0)
	stream(late, time.Second)
	return mux
}

func listen() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return l
}

const config = `
ServerRoot %[1]s
ServerName localhost
DefaultRuntimeDir %[1]s
PidFile %[1]s/%[2]s.pid
ErrorLog %[1]s/%[2]s.log
User nobody
Group nogroup
Listen %[3]s
LoadModule mpm_event_module root/usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module root/usr/lib/apache2/modules/mod_authz_core.so
LoadModule http2_module root/usr/lib/apache2/modules/mod_http2.so
LoadModule proxy_module root/usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module root/usr/lib/apache2/modules/mod_proxy_http.so
LoadModule proxy_http2_module root/usr/lib/apache2/modules/mod_proxy_http2.so
Protocols h2c
Timeout %[5]d
ProxyPass / %[6]s://%[4]s/
`

// apache starts one that passes calls on in a scheme, and returns its address. The timeout is in seconds.
func apache(scheme, service string, timeout int) (address string, stop func()) {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	l := listen()
	address = l.Addr().String()
	l.Close()
	name := fmt.Sprint(scheme, timeout)
	file := dir + "/" + name + ".conf"
	if err := os.WriteFile(file, fmt.Appendf(nil, config, dir, name, address, service, timeout, scheme), 0o644); err != nil {
		panic(err)
	}
	server := exec.Command("root/usr/sbin/apache2", "-X", "-f", file)
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		panic(err)
	}
	for range 100 {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return address, func() {
		server.Process.Signal(syscall.SIGTERM) // upon which it takes its pid file away
		server.Wait()
	}
}

func main() {
	var both, only http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	only.SetUnencryptedHTTP2(true)
	l := listen()
	go (&http.Server{Handler: handlers(), Protocols: &both}).Serve(l)
	service := l.Addr().String()
	var stops []func()
	start := func(scheme string, timeout int) string {
		address, stop := apache(scheme, service, timeout)
		stops = append(stops, stop)
		return address
	}
	h2c, h1, short := start("h2c", 60), start("http", 60), start("h2c", 2)
	client := &http.Client{Transport: &http.Transport{Protocols: &only}}
	var seen, want []string
	report := func(way, address, protocol string, option connect.ClientOption, unary, stream, sent string) {
		line := "%s, %s: unary %s, stream %s, stream that sends again %s"
		want = append(want, fmt.Sprintf(line, way, protocol, unary, stream, sent))
		call := func(procedure string) *connect.Client[empty, empty] {
			return connect.NewClient[empty, empty](client, "http://"+address+procedure, option)
		}
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(300*time.Millisecond, cancel)
		call(one).CallUnary(ctx, connect.NewRequest(&empty{}))
		unary = <-told
		left := func(procedure string) string {
			ctx, cancel := context.WithCancel(context.Background())
			s, err := call(procedure).CallServerStream(ctx, connect.NewRequest(&empty{}))
			if err != nil || !s.Receive() {
				panic("no stream")
			}
			time.AfterFunc(300*time.Millisecond, cancel)
			return <-told
		}
		seen = append(seen, fmt.Sprintf(line, way, protocol, unary, left(watch), left(late)))
		fmt.Println(seen[len(seen)-1])
	}
	for protocol, option := range map[string]connect.ClientOption{"Connect": connect.WithClientOptions(), "gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb()} {
		report("no proxy", service, protocol, option, "told", "told", "told")
		report("h2c", h2c, protocol, option, "not told", "not told", "told")
	}
	report("http", h1, "Connect", connect.WithClientOptions(), "not told", "not told", "told")
	report("h2c, Timeout 2", short, "Connect", connect.WithClientOptions(), "told", "told", "told")
	s, err := connect.NewClient[empty, empty](client, "http://"+short+watch).CallServerStream(context.Background(), connect.NewRequest(&empty{}))
	if err != nil || !s.Receive() {
		panic("no stream")
	}
	s.Receive()
	seen = append(seen, fmt.Sprintf("h2c, Timeout 2, Connect: stream that nobody left: handler %s, caller %v", <-told, s.Err()))
	fmt.Println(seen[len(seen)-1])
	seen[len(seen)-1], _, _ = strings.Cut(seen[len(seen)-1], " in enveloped message")
	want = append(want, "h2c, Timeout 2, Connect: stream that nobody left: handler told, caller internal: protocol error: promised 558124867 bytes")
	for _, stop := range stops {
		stop()
	}
	if strings.Join(seen, "\n") != strings.Join(want, "\n") {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
root/usr/sbin/apache2 -v | head -1
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
