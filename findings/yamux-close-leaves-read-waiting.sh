#!/usr/bin/env bash
# Guess: a stream of a multiplexer that says it is a net.Conn keeps what net.Conn promises, so that net/http and gRPC run over it as over TCP: Close
# and a deadline wake whoever is blocked in Read or Write, and after a write deadline nothing is written.
# Seen: (1) github.com/hashicorp/yamux v0.1.2: Close does not wake this side's blocked Read, which waits on for the other side (here three seconds);
# Write succeeds after its deadline as long as there is room. (2) github.com/xtaci/smux v1.5.58: neither Close nor a deadline wakes a Write that
# began without one and waits for the other side. (3) bufconn of google.golang.org/grpc v1.85.0: Write succeeds after its deadline. So
# http.Server.WriteTimeout (Go 1.26), which over TCP ends the connection of a handler that is too slow, has no effect over yamux and bufconn: the
# late answer is sent, with status 200. github.com/libp2p/go-yamux/v5 v5.1.0, a fork of the first, does all as TCP.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/hashicorp/yamux v0.1.2
	github.com/libp2p/go-yamux/v5 v5.1.0
	github.com/xtaci/smux v1.5.58
	google.golang.org/grpc v1.85.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/yamux"
	libp2p "github.com/libp2p/go-yamux/v5"
	"github.com/xtaci/smux"
	"google.golang.org/grpc/test/bufconn"
)

// A kind makes both sides of a connection: the one that accepted first.
type kind struct {
	name string
	pair func() (accepted, opened net.Conn)
}

var kinds = []kind{
	{"tcp", tcp},
	{"yamux", func() (net.Conn, net.Conn) {
		a, b := tcp()
		config := yamux.DefaultConfig()
		config.LogOutput = io.Discard
		s, err := yamux.Server(a, config)
		check(err)
		c, err := yamux.Client(b, config)
		check(err)
		return both(s.Accept, c.Open)
	}},
	{"libp2p's yamux", func() (net.Conn, net.Conn) {
		a, b := tcp()
		s, err := libp2p.Server(a, nil, nil)
		check(err)
		c, err := libp2p.Client(b, nil, nil)
		check(err)
		return both(s.Accept, func() (net.Conn, error) { return c.Open(context.Background()) })
	}},
	{"smux", func() (net.Conn, net.Conn) {
		a, b := tcp()
		s, err := smux.Server(a, nil)
		check(err)
		c, err := smux.Client(b, nil)
		check(err)
		return both(func() (net.Conn, error) { return s.AcceptStream() }, func() (net.Conn, error) { return c.OpenStream() })
	}},
	{"bufconn", func() (net.Conn, net.Conn) {
		ln := bufconn.Listen(1 << 16)
		return both(ln.Accept, ln.Dial)
	}},
}

func tcp() (net.Conn, net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	return both(ln.Accept, func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) })
}

func both(accept, open func() (net.Conn, error)) (net.Conn, net.Conn) {
	accepted := make(chan net.Conn)
	go func() {
		c, err := accept()
		check(err)
		accepted <- c
	}()
	c, err := open()
	check(err)
	return <-accepted, c
}

func main() {
	for _, k := range kinds {
		fmt.Printf("%s: blocked Read: Close %s, deadline %s\n", k.name,
			woken(k, read, net.Conn.Close), woken(k, read, func(c net.Conn) error { return c.SetReadDeadline(time.Now()) }))
		fmt.Printf("%s: blocked Write: Close %s, deadline %s\n", k.name,
			woken(k, write, net.Conn.Close), woken(k, write, func(c net.Conn) error { return c.SetWriteDeadline(time.Now()) }))
		if k.name == "smux" {
			continue // Which of deadline and room is seen first differs from time to time.
		}
		_, c := k.pair()
		check(c.SetWriteDeadline(time.Unix(1, 0)))
		_, err := c.Write([]byte("late"))
		fmt.Printf("%s: Write after its deadline: %s\n", k.name, yes(err == nil, "written", "refused"))
		fmt.Printf("%s: answer after WriteTimeout: %s\n", k.name, late(k))
	}
}

func read(c net.Conn) {
	c.Read(make([]byte, 1))
}

func write(c net.Conn) {
	for {
		if _, err := c.Write(make([]byte, 1<<16)); err != nil {
			return
		}
	}
}

// woken blocks in f, does what shall wake it half a second later, and tells whether f has returned within three seconds.
func woken(k kind, f func(net.Conn), wake func(net.Conn) error) string {
	other, c := k.pair()
	defer other.LocalAddr() // It is kept, and reads nothing.
	done := make(chan struct{})
	go func() {
		f(c)
		close(done)
	}()
	time.Sleep(500 * time.Millisecond)
	go wake(c)
	select {
	case <-done:
		return "wakes it"
	case <-time.After(3 * time.Second):
		return "does not wake it"
	}
}

// late asks a server of net/http whose handler takes longer than WriteTimeout.
func late(k kind) string {
	accepted, c := k.pair()
	s := &http.Server{WriteTimeout: 100 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Second)
		io.WriteString(w, "late")
	})}
	ln := &one{conn: make(chan net.Conn, 1)}
	ln.conn <- accepted
	go s.Serve(ln)
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	check(err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return yes(errors.Is(err, io.ErrUnexpectedEOF), "none", err.Error())
	}
	return res.Status
}

// one is a listener of one connection.
type one struct{ conn chan net.Conn }

func (l *one) Accept() (net.Conn, error) { return <-l.conn, nil }
func (l *one) Close() error              { return nil }
func (l *one) Addr() net.Addr            { return &net.TCPAddr{} }

func yes(is bool, y, n string) string {
	if is {
		return y
	}
	return n
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version; grep -E 'yamux|smux|grpc v' go.mod
GOTOOLCHAIN=local timeout 150 go run . | tee seen
: > want
for kind in tcp yamux "libp2p's yamux" smux bufconn; do
  wakes='Close wakes it, deadline wakes it' none='Close does not wake it, deadline does not wake it'
  case $kind in yamux) read='Close does not wake it, deadline wakes it';; *) read=$wakes;; esac
  case $kind in smux) write=$none;; *) write=$wakes;; esac
  printf '%s\n' "$kind: blocked Read: $read" "$kind: blocked Write: $write" >> want
  case $kind in
    yamux | bufconn) printf '%s\n' "$kind: Write after its deadline: written" "$kind: answer after WriteTimeout: 200 OK" >> want;;
    smux) ;;
    *) printf '%s\n' "$kind: Write after its deadline: refused" "$kind: answer after WriteTimeout: none" >> want;;
  esac
done
cmp -s seen want || { echo CHANGED; exit 1; }
