#!/usr/bin/env bash
# Guess: a client of the Model Context Protocol over HTTP whose server was restarted, and so has lost the session, goes on with a new one: the protocol's
# transport says that a client that is answered with 404 in a session MUST start a new one.
# Seen: none of three does, against a server of the official Go SDK that keeps sessions. With github.com/modelcontextprotocol/go-sdk v1.8.0 the call that
# meets the 404 fails with "session not found", and each one after it with mcp.ErrConnectionClosed. With github.com/mark3labs/mcp-go v1.2.1 each call fails
# with transport.ErrSessionTerminated, "need to re-initialize", until the program calls Initialize again, which works on the same client. With
# @modelcontextprotocol/sdk 1.32.2 (npm) each fails with StreamableHTTPError, code 404, for good. So a restart of a server, which a client of gRPC or
# Connect hardly notices, takes each of these clients away from it until its own program does something about it.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @modelcontextprotocol/sdk@1.32.2 > /dev/null 2>&1
cat > main.mjs <<'EOT'
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { createInterface } from 'node:readline';

const client = new Client({ name: 'client', version: '1' });
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
// One call for each line.
for await (const _ of createInterface({ input: process.stdin })) {
  try {
    await client.callTool({ name: 'hello' });
    console.log('answered');
  } catch (error) {
    console.log(`${error.constructor.name} ${error.code}`);
  }
}
process.exit(0);
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/mark3labs/mcp-go v1.2.1
	github.com/modelcontextprotocol/go-sdk v1.8.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// start serves at address what any process of this program would.
func start(address string) (*http.Server, string) {
	s := mcp.NewServer(&mcp.Implementation{Name: "server", Version: "1"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: "hello"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "hello"}}}, nil, nil
	})
	server := &http.Server{Handler: mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, nil)}
	var l net.Listener
	for range 50 {
		var err error
		if l, err = net.Listen("tcp", address); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	go server.Serve(l)
	return server, l.Addr().String()
}

// goSDK returns a call of the official SDK's client.
func goSDK(ctx context.Context, url string) func() string {
	session := must(mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil).Connect(ctx, &mcp.StreamableClientTransport{Endpoint: url}, nil))
	return func() string {
		_, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "hello"})
		switch {
		case err == nil:
			return "answered"
		case errors.Is(err, mcp.ErrConnectionClosed):
			return "ErrConnectionClosed"
		case strings.Contains(err.Error(), "session not found"):
			return "session not found"
		}
		return err.Error()
	}
}

// mark3labs returns a call of mcp-go's client, and what begins a session.
func mark3labs(ctx context.Context, url string) (call, begin func() string) {
	c := must(client.NewStreamableHttpClient(url))
	if err := c.Start(ctx); err != nil {
		panic(err)
	}
	begin = func() string {
		var r mcpgo.InitializeRequest
		r.Params.ProtocolVersion, r.Params.ClientInfo = "2025-11-25", mcpgo.Implementation{Name: "client", Version: "1"}
		must(c.Initialize(ctx, r))
		return "begun"
	}
	begin()
	return func() string {
		var r mcpgo.CallToolRequest
		r.Params.Name = "hello"
		_, err := c.CallTool(ctx, r)
		switch {
		case err == nil:
			return "answered"
		case errors.Is(err, transport.ErrSessionTerminated):
			return "ErrSessionTerminated"
		}
		return err.Error()
	}, begin
}

// typescript returns a call of the client that node runs.
func typescript(url string) func() string {
	cmd := exec.Command("node", "main.mjs", url)
	cmd.Stderr = os.Stderr
	in, out := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(out)
	return func() string {
		fmt.Fprintln(in, "call")
		if !lines.Scan() {
			return "node ended"
		}
		return lines.Text()
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	server, address := start("127.0.0.1:0")
	url := "http://" + address
	sdk, ts := goSDK(ctx, url), typescript(url)
	m3, begin := mark3labs(ctx, url)
	seen := []string{"before: " + sdk() + ", " + m3() + ", " + ts()}
	server.Close()
	time.Sleep(2 * time.Second) // each client has seen by then that its connection is closed
	server, _ = start(address)
	for range 3 {
		seen = append(seen, "after: "+sdk()+", "+m3()+", "+ts())
		time.Sleep(time.Second)
	}
	seen = append(seen, "mcp-go after Initialize: "+begin()+", "+m3())
	server.Close()
	fmt.Println(strings.Join(seen, "\n"))
	later := "after: ErrConnectionClosed, ErrSessionTerminated, StreamableHTTPError 404"
	if !slices.Equal(seen, []string{
		"before: answered, answered, answered",
		"after: session not found, ErrSessionTerminated, StreamableHTTPError 404",
		later,
		later,
		"mcp-go after Initialize: begun, answered",
	}) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/modelcontextprotocol/go-sdk github.com/mark3labs/mcp-go
node -p "'@modelcontextprotocol/sdk ' + JSON.parse(require('fs').readFileSync('node_modules/@modelcontextprotocol/sdk/package.json')).version"
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
