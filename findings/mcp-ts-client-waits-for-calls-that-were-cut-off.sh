#!/usr/bin/env bash
# Guess: a call of the Model Context Protocol over HTTP whose answer is cut off, as the server or a proxy before it is restarted, fails as soon as the client notices, since nothing
# can come any more where the server gave the stream no event ids to resume it by, as none does unless it has an event store.
# Seen: against a server of github.com/modelcontextprotocol/go-sdk v1.8.0 as it comes, @modelcontextprotocol/sdk 1.32.2 (npm) notices at once, tells onerror "SSE stream
# disconnected", opens the stream for the server's own messages anew, and leaves the call waiting until its timeout: 60 s unless the caller says
# otherwise (here 8 s). Then it says "Request timed out", code -32001. go-sdk's own client and
# github.com/mark3labs/mcp-go v1.2.1 fail within a moment. With an event store at the server each of go-sdk and TypeScript has the result in the end.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@22.23.3 @modelcontextprotocol/sdk@1.32.2 > /dev/null 2>&1
cat > go.mod <<'EOM'
module finding

go 1.26.0

require (
	github.com/mark3labs/mcp-go v1.2.1
	github.com/modelcontextprotocol/go-sdk v1.8.0
)
EOM
cat > main.go <<'EOM'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/client"
	mark "github.com/mark3labs/mcp-go/mcp"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// listener knows its connections, so that they can be cut.
type listener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, c)
	}
	return c, err
}

func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

// serve serves a tool that works for 3 s, while which all connections are cut once.
func serve(o *mcp.StreamableHTTPOptions) string {
	s := mcp.NewServer(&mcp.Implementation{Name: "s", Version: "1"}, nil)
	l := &listener{Listener: must(net.Listen("tcp", "127.0.0.1:0"))}
	mcp.AddTool(s, &mcp.Tool{Name: "work", Description: "works"}, func(ctx context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		// The answer has begun with this.
		if err := r.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: r.Params.GetProgressToken(), Progress: 1}); err != nil {
			return nil, nil, err
		}
		time.Sleep(500 * time.Millisecond)
		l.cut()
		time.Sleep(2500 * time.Millisecond)
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "done"}}}, nil, nil
	})
	go http.Serve(l, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, o))
	return "http://" + l.Addr().String()
}

func report(who string, begun time.Time, err error) {
	when := "at once"
	if time.Since(begun) > 5*time.Second {
		when = "at its timeout"
	}
	if err == nil {
		fmt.Println(who+":", "done")
		return
	}
	fmt.Println(who+": fails", when)
}

func main() {
	ctx := context.Background()
	bare, stored := serve(nil), serve(&mcp.StreamableHTTPOptions{EventStore: mcp.NewMemoryEventStore(nil)})
	fmt.Fprintln(os.Stderr, bare, stored)
	for name, url := range map[string]string{"without an event store": bare, "with an event store": stored} {
		s := must(mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil).Connect(ctx, &mcp.StreamableClientTransport{Endpoint: url}, nil))
		call, stop := context.WithTimeout(ctx, 8*time.Second)
		p := &mcp.CallToolParams{Name: "work", Arguments: map[string]any{}}
		p.SetProgressToken("t")
		begun := time.Now()
		_, err := s.CallTool(call, p)
		report("go-sdk, "+name, begun, err)
		stop()
	}
	c := must(client.NewStreamableHttpClient(bare))
	if err := c.Start(ctx); err != nil {
		panic(err)
	}
	var hello mark.InitializeRequest
	hello.Params.ProtocolVersion = mark.LATEST_PROTOCOL_VERSION
	hello.Params.ClientInfo = mark.Implementation{Name: "c", Version: "1"}
	must(c.Initialize(ctx, hello))
	call, stop := context.WithTimeout(ctx, 8*time.Second)
	defer stop()
	var r mark.CallToolRequest
	r.Params.Name = "work"
	r.Params.Arguments = map[string]any{}
	r.Params.Meta = &mark.Meta{ProgressToken: "t"}
	begun := time.Now()
	_, err := c.CallTool(call, r)
	report("mcp-go, without an event store", begun, err)
	fmt.Println("end")
	select {}
}
EOM
cat > main.mjs <<'EOM'
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
const [bare, stored] = process.argv.slice(2);
for (const [name, url] of [['without an event store', bare], ['with an event store', stored]]) {
  const client = new Client({ name: 'c', version: '1' });
  let told;
  client.onerror = (e) => { told ??= e.message.replace(/:.*/, ''); };
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  const begun = Date.now();
  const said = await client.callTool({ name: 'work', arguments: {} }, undefined, { timeout: 8000, onprogress() {} }).then(
    () => 'done',
    (e) => `fails ${Date.now() - begun > 5000 ? 'at its timeout' : 'at once'}, ${e.code}, behind onerror: ${told}`,
  );
  console.log(`TypeScript, ${name}: ${said}`);
}
process.exit();
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/modelcontextprotocol/go-sdk github.com/mark3labs/mcp-go
node_modules/.bin/node -p '"node " + process.version + ", @modelcontextprotocol/sdk " + JSON.parse(require("fs").readFileSync("node_modules/@modelcontextprotocol/sdk/package.json")).version'
GOTOOLCHAIN=local go build -o finding .
./finding > go.seen 2> urls &
until grep -q ^end go.seen; do kill -0 $! || exit 1; sleep 0.1; done
read -r bare stored < <(grep ^http urls)
timeout 60 node_modules/.bin/node main.mjs "$bare" "$stored" > node.seen
LC_ALL=C sort go.seen node.seen | grep -v ^end | tee seen
cat > want <<'EOM'
TypeScript, with an event store: done
TypeScript, without an event store: fails at its timeout, -32001, behind onerror: SSE stream disconnected
go-sdk, with an event store: done
go-sdk, without an event store: fails at once
mcp-go, without an event store: fails at once
EOM
cmp -s seen want || { cat urls; echo CHANGED; exit 1; }
