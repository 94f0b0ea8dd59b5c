#!/usr/bin/env bash
# Guess: after its write deadline a stream of a multiplexer that says it is a net.Conn writes nothing, as TCP does, so that http.Server.WriteTimeout
# ends the connection of a handler that is too slow.
# Seen: over github.com/hashicorp/yamux v0.1.2 and bufconn of google.golang.org/grpc v1.85.0 a Write after its deadline succeeds and arrives, as long
# as there is room. So WriteTimeout of net/http (Go 1.26) has no effect there: the late answer is sent, with status 200, where over TCP there is none.
# github.com/libp2p/go-yamux/v5 v5.1.0, a fork of the first, does as TCP.
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
	"google.golang.org/grpc/test/bufconn"
)

// kinds make both sides of a connection.
var kinds = []struct {
	name string
	pair func() (accepted, opened net.Conn)
}{
	{"tcp", tcp},
	{"libp2p's yamux", func() (net.Conn, net.Conn) {
		a, b := tcp()
		s, err := libp2p.Server(a, nil, nil)
		check(err)
		c, err := libp2p.Client(b, nil, nil)
		check(err)
		return both(s.Accept, func() (net.Conn, error) { return c.Open(context.Background()) })
	}},
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
	changed := false
	for i, k := range kinds {
		fmt.Printf("%-15s a Write after its deadline: %-9s an answer after WriteTimeout: %s\n", k.name, write(k.pair()), answer(k.pair()))
		written := i >= 2
		changed = changed || (write(k.pair()) == "arrives") != written || (answer(k.pair()) == "200 OK late") != written
	}
	if changed {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

// write writes after the deadline.
func write(accepted, opened net.Conn) string {
	check(accepted.SetWriteDeadline(time.Unix(1, 0)))
	if _, err := io.WriteString(accepted, "late"); errors.Is(err, os.ErrDeadlineExceeded) || isTimeout(err) {
		return "refused"
	} else if err != nil {
		return err.Error()
	}
	got := make([]byte, len("late"))
	_, err := io.ReadFull(opened, got)
	check(err)
	return "arrives"
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// answer asks a server whose handler takes longer than it may.
func answer(accepted, opened net.Conn) string {
	server := &http.Server{WriteTimeout: 100 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(500 * time.Millisecond)
		io.WriteString(w, "late")
	})}
	l := &one{conn: make(chan net.Conn, 1)}
	l.conn <- accepted
	go server.Serve(l)
	_, err := io.WriteString(opened, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	check(err)
	res, err := http.ReadResponse(bufio.NewReader(opened), nil)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "none"
	}
	check(err)
	body := make([]byte, res.ContentLength)
	_, err = io.ReadFull(res.Body, body)
	check(err)
	return res.Status + " " + string(body)
}

// one is a listener of one connection.
type one struct{ conn chan net.Conn }

func (l *one) Accept() (net.Conn, error) { return <-l.conn, nil }
func (l *one) Close() error              { return nil }
func (l *one) Addr() net.Addr            { return &net.TCPAddr{} }

func check(err error) {
	if err != nil {
		panic(err)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version
grep -E 'yamux|grpc v' go.mod
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding
