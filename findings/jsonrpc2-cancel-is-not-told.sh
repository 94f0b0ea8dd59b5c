#!/usr/bin/env bash
# Guess: in libraries of Go for JSON-RPC 2, on which language servers and other plugins over pipes are built, a handler's context ends when its caller's
# does, by its deadline or by cancel, as in gRPC; calls that are made at once run side by side, as they do on a connection of gRPC.
# Seen: with github.com/sourcegraph/jsonrpc2 v0.2.3, github.com/creachadair/jrpc2 v1.3.6 and golang.org/x/exp/jsonrpc2 (July of 2026) the call returns at
# once and the handler is told nothing: no message is sent, and it works to its end for nobody. vscode-jsonrpc 10.0.0 (npm) sends $/cancelRequest, and its
# own handlers hear of it; a handler of sourcegraph's behind it does not, as that is a notification like others there. Four calls of 400 ms take 1.6 s with
# sourcegraph's, unless the handler is wrapped with AsyncHandler, and with x/exp's: one waits for the other. jrpc2 tells the handler where the program does
# it: a notification in ClientOptions.OnCancel, and a handler for it that calls Server.CancelRequest.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save vscode-jsonrpc@10.0.0 > /dev/null 2>&1
cat > main.cjs <<'EOT'
'use strict';
const net = require('node:net');
const rpc = require('vscode-jsonrpc/node');
const connection = (socket) => rpc.createMessageConnection(new rpc.StreamMessageReader(socket), new rpc.StreamMessageWriter(socket));
const cancel = async (client) => {
  const source = new rpc.CancellationTokenSource();
  setTimeout(() => source.cancel(), 200);
  await client.sendRequest('work', source.token).catch(() => {});
};
const server = net.createServer((socket) => {
  const c = connection(socket);
  c.onRequest('work', (token) => new Promise((done) => {
    const timer = setTimeout(() => done('worked'), 3000);
    token.onCancellationRequested(() => { clearTimeout(timer); console.log('told'); done('ended'); });
  }));
  c.listen();
}).listen(0, '127.0.0.1', async () => {
  for (const port of [server.address().port, Number(process.argv[2])]) {
    const socket = net.connect(port, '127.0.0.1');
    const client = connection(socket);
    client.listen();
    await cancel(client);
    client.dispose();
    socket.end();
  }
  process.exit(0);
});
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/creachadair/jrpc2 v1.3.6
	github.com/sourcegraph/jsonrpc2 v0.2.3
	golang.org/x/exp/jsonrpc2 v0.0.0-20260709172345-9ea1abe57597
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/channel"
	"github.com/creachadair/jrpc2/handler"
	sourcegraph "github.com/sourcegraph/jsonrpc2"
	xexp "golang.org/x/exp/jsonrpc2"
)

const works = 2 * time.Second

var (
	told atomic.Int64
	seen []string
	ctx  = context.Background()
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Println(line)
	seen = append(seen, line)
}

// work is every handler.
func work(ctx context.Context, takes time.Duration) {
	select {
	case <-ctx.Done():
		told.Add(1)
	case <-time.After(takes):
	}
}

// cancels says what becomes of a call whose deadline passes and of one that is cancelled.
func cancels(library string, call func(context.Context, string) error) {
	told.Store(0)
	late, cancel := context.WithTimeout(ctx, works/10)
	begin := time.Now()
	err := call(late, "work")
	cancel()
	time.Sleep(works)
	c, cancel := context.WithCancel(ctx)
	time.AfterFunc(works/10, cancel)
	err2 := call(c, "work")
	atOnce := time.Since(begin) < 2*works
	time.Sleep(works)
	say("%s: late %v, cancelled %v, at once %t, handlers told %d", library, err != nil, err2 != nil, atOnce, told.Load())
}

// together says whether four short calls run side by side.
func together(library string, call func(context.Context, string) error) {
	begin := time.Now()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := call(ctx, "short"); err != nil {
				panic(err)
			}
		})
	}
	all.Wait()
	say("%s: four one after the other %t", library, time.Since(begin) >= 4*works/5)
}

func takes(method string) time.Duration {
	if method == "short" {
		return works / 5
	}
	return works
}

func serveSourcegraph(async bool) net.Listener {
	var h sourcegraph.Handler = sourcegraph.HandlerWithError(func(ctx context.Context, _ *sourcegraph.Conn, r *sourcegraph.Request) (any, error) {
		if !r.Notif {
			work(ctx, takes(r.Method))
		}
		return "worked", nil
	})
	if async {
		h = sourcegraph.AsyncHandler(h)
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			sourcegraph.NewConn(ctx, sourcegraph.NewBufferedStream(c, sourcegraph.VSCodeObjectCodec{}), h)
		}
	}()
	return l
}

func main() {
	for _, async := range []bool{false, true} {
		l := serveSourcegraph(async)
		stream := sourcegraph.NewBufferedStream(must(net.Dial("tcp", l.Addr().String())), sourcegraph.VSCodeObjectCodec{})
		client := sourcegraph.NewConn(ctx, stream, sourcegraph.HandlerWithError(func(context.Context, *sourcegraph.Conn, *sourcegraph.Request) (any, error) { return nil, nil }))
		call := func(ctx context.Context, method string) error { return client.Call(ctx, method, nil, new(string)) }
		name := fmt.Sprintf("sourcegraph, AsyncHandler %t", async)
		cancels(name, call)
		together(name, call)
	}

	for _, tell := range []bool{false, true} {
		serve := func(takes time.Duration) jrpc2.Handler {
			return handler.New(func(ctx context.Context) string { work(ctx, takes); return "worked" })
		}
		here, there := channel.Direct()
		jrpc2.NewServer(handler.Map{
			"work": serve(works), "short": serve(works / 5),
			"cancel": handler.New(func(ctx context.Context, ids []string) error {
				jrpc2.ServerFromContext(ctx).CancelRequest(ids[0])
				return nil
			}),
		}, &jrpc2.ServerOptions{Concurrency: 8}).Start(there)
		options := &jrpc2.ClientOptions{}
		if tell {
			options.OnCancel = func(c *jrpc2.Client, r *jrpc2.Response) { c.Notify(ctx, "cancel", []string{r.ID()}) }
		}
		client := jrpc2.NewClient(here, options)
		call := func(ctx context.Context, method string) error { _, err := client.Call(ctx, method, nil); return err }
		name := fmt.Sprintf("jrpc2, OnCancel %t", tell)
		cancels(name, call)
		together(name, call)
	}

	l := must(xexp.NetListener(ctx, "tcp", "127.0.0.1:0", xexp.NetListenOptions{}))
	must(xexp.Serve(ctx, l, xexp.ConnectionOptions{Handler: xexp.HandlerFunc(func(ctx context.Context, r *xexp.Request) (any, error) {
		work(ctx, takes(r.Method))
		return "worked", nil
	})}))
	client := must(xexp.Dial(ctx, l.Dialer(), xexp.ConnectionOptions{}))
	call := func(ctx context.Context, method string) error { return client.Call(ctx, method, nil).Await(ctx, new(string)) }
	cancels("x/exp", call)
	together("x/exp", call)

	told.Store(0)
	_, port, _ := net.SplitHostPort(serveSourcegraph(true).Addr().String())
	out := must(exec.Command("node", "main.cjs", port).CombinedOutput())
	time.Sleep(works)
	say("vscode-jsonrpc cancels: its own handlers told %d, sourcegraph's told %d", strings.Count(string(out), "told"), told.Load())
	const nothing = "late true, cancelled true, at once true, handlers told 0"
	if !slices.Equal(seen, []string{
		"sourcegraph, AsyncHandler false: " + nothing,
		"sourcegraph, AsyncHandler false: four one after the other true",
		"sourcegraph, AsyncHandler true: " + nothing,
		"sourcegraph, AsyncHandler true: four one after the other false",
		"jrpc2, OnCancel false: " + nothing,
		"jrpc2, OnCancel false: four one after the other false",
		"jrpc2, OnCancel true: late true, cancelled true, at once true, handlers told 2",
		"jrpc2, OnCancel true: four one after the other false",
		"x/exp: " + nothing,
		"x/exp: four one after the other true",
		"vscode-jsonrpc cancels: its own handlers told 1, sourcegraph's told 0",
	}) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/sourcegraph/jsonrpc2 github.com/creachadair/jrpc2 golang.org/x/exp/jsonrpc2
node -p "'vscode-jsonrpc ' + JSON.parse(require('fs').readFileSync('node_modules/vscode-jsonrpc/package.json')).version"
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
