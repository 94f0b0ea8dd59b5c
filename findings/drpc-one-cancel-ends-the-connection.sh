#!/usr/bin/env bash
# Guess: a connection of DRPC is shared by calls as one of gRPC is: a call whose caller cancels, or whose deadline passes, ends alone, and calls that are
# made at once run side by side.
# Seen: with storj.io/drpc v1.0.0 (drpcconn, as drpcconn.New makes it) the first call that is cancelled or late closes the connection, and each later call on it
# fails at once with that call's error: "context canceled" or, by errors.Is too, context.DeadlineExceeded, of a context that has no deadline. It looks
# as if the later call had been too slow. With SoftCancel in the options the connection stays; the handler is told either way, of a deadline not
# before it has passed. Four calls at once that take 300 ms take 1.2 s, as a connection carries one at a time; one that waits for its turn and is
# cancelled harms nobody.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	google.golang.org/protobuf v1.36.12
	storj.io/drpc v1.0.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmanager"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcserver"
)

type empty = emptypb.Empty

const slow = 300 * time.Millisecond

// told is what a handler learnt of its caller's end.
var told = make(chan string, 1)

type plugin struct{}

func (plugin) Answer(context.Context, *empty) (*empty, error) { return &empty{}, nil }

func (plugin) Slow(context.Context, *empty) (*empty, error) {
	time.Sleep(slow)
	return &empty{}, nil
}

func (plugin) Wait(ctx context.Context, _ *empty) (*empty, error) {
	_, deadline := ctx.Deadline()
	select {
	case <-ctx.Done():
		told <- fmt.Sprintf("told, deadline %t", deadline)
	case <-time.After(3 * time.Second):
		told <- "not told"
	}
	return &empty{}, nil
}

// description is what protoc-gen-go-drpc would generate.
type description struct{}

func (description) NumMethods() int { return 3 }

func (description) Method(i int) (string, drpc.Encoding, drpc.Receiver, any, bool) {
	name := []string{"Answer", "Slow", "Wait"}[i]
	method := []func(plugin, context.Context, *empty) (*empty, error){plugin.Answer, plugin.Slow, plugin.Wait}[i]
	return "/e.E/" + name, encoding{}, func(server any, ctx context.Context, in, _ any) (drpc.Message, error) {
		return method(server.(plugin), ctx, in.(*empty))
	}, method, true
}

type encoding struct{}

func (encoding) Marshal(m drpc.Message) ([]byte, error) { return proto.Marshal(m.(proto.Message)) }
func (encoding) Unmarshal(b []byte, m drpc.Message) error {
	return proto.Unmarshal(b, m.(proto.Message))
}

func call(ctx context.Context, conn *drpcconn.Conn, name string) error {
	return conn.Invoke(ctx, "/e.E/"+name, encoding{}, &empty{}, &empty{})
}

func ended(how string) (context.Context, context.CancelFunc) {
	if how == "late" {
		return context.WithTimeout(context.Background(), slow)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(slow, cancel)
	return ctx, cancel
}

func main() {
	mux := drpcmux.New()
	if err := mux.Register(plugin{}, description{}); err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go drpcserver.New(mux).Serve(context.Background(), l)
	dial := func(soft bool) *drpcconn.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			panic(err)
		}
		return drpcconn.NewWithOptions(conn, drpcconn.Options{Manager: drpcmanager.Options{SoftCancel: soft}})
	}
	background := context.Background()
	var seen []string
	say := func(format string, args ...any) { seen = append(seen, fmt.Sprintf(format, args...)) }
	for _, soft := range []bool{false, true} {
		for _, how := range []string{"cancelled", "late"} {
			conn := dial(soft)
			ctx, cancel := ended(how)
			err := call(ctx, conn, "Wait")
			cancel()
			handler := <-told
			next := call(background, conn, "Answer")
			say("SoftCancel %t, %s: %v, handler %s; next call: %v, DeadlineExceeded %t", soft, how, err, handler, next, errors.Is(next, context.DeadlineExceeded))
		}
	}
	conn := dial(false)
	begin := time.Now()
	var four sync.WaitGroup
	for range 4 {
		four.Go(func() {
			if err := call(background, conn, "Slow"); err != nil {
				panic(err)
			}
		})
	}
	time.Sleep(slow / 2)
	ctx, cancel := context.WithTimeout(background, slow/2)
	err = call(ctx, conn, "Answer")
	cancel()
	four.Wait()
	say("four at once one after the other: %t; one that gave up behind them: %v; next call: %v", time.Since(begin) >= 4*slow, err, call(background, conn, "Answer"))
	const want = `SoftCancel false, cancelled: context canceled, handler told, deadline false; next call: context canceled, DeadlineExceeded false
SoftCancel false, late: context deadline exceeded, handler told, deadline false; next call: context deadline exceeded, DeadlineExceeded true
SoftCancel true, cancelled: context canceled, handler told, deadline false; next call: <nil>, DeadlineExceeded false
SoftCancel true, late: context deadline exceeded, handler told, deadline false; next call: <nil>, DeadlineExceeded false
four at once one after the other: true; one that gave up behind them: context deadline exceeded; next call: <nil>`
	fmt.Println(strings.Join(seen, "\n"))
	if strings.Join(seen, "\n") != want {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m storj.io/drpc
GOTOOLCHAIN=local timeout 120 go run .
