#!/usr/bin/env bash
# Guess: in the Model Context Protocol a call that its caller cancels, or whose deadline passes, ends alone, as in gRPC: the session goes on, with
# whichever SDK on the other side.
# Seen: between a client of the official SDK, github.com/modelcontextprotocol/go-sdk v1.8.0 (StreamableClientTransport), and a server of
# github.com/mark3labs/mcp-go v1.2.1 (StreamableHTTPServer) the first such call ends the session: the handler is told, and every later call of that client
# fails at once with "client is closing: sending "notifications/cancelled": Bad Request", mcp.ErrConnectionClosed. Both speak the protocol's version
# 2026-07-28. The SDK puts that version into the _meta of each call, and not into that of the notification; mcp-go answers what lacks it with HTTP 400; and
# a status of 400 for a notification is the end of the connection for the SDK. Over pipes, and with a server of the SDK's own or a client of mcp-go's over
# HTTP, the next call is answered; but a handler of the SDK's own server with StreamableHTTPOptions.Stateless, which has that version too, is not told that
# its caller has gone.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
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
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/client"
	marks "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// wait is what both servers' tool does: it waits for its caller to go, once.
type wait struct{ told chan error }

func (w wait) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		w.told <- ctx.Err()
	case <-time.After(5 * time.Second):
		w.told <- nil
	}
	return ctx.Err()
}

func marksServer(w wait) *server.MCPServer {
	s := server.NewMCPServer("server", "1")
	s.AddTool(marks.NewTool("wait"), func(ctx context.Context, _ marks.CallToolRequest) (*marks.CallToolResult, error) {
		return marks.NewToolResultText(""), w.run(ctx)
	})
	s.AddTool(marks.NewTool("hello"), func(context.Context, marks.CallToolRequest) (*marks.CallToolResult, error) {
		return marks.NewToolResultText("hello"), nil
	})
	return s
}

func sdkServer(w wait) *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "server", Version: "1"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: "wait"}, func(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{}, nil, w.run(ctx)
	})
	mcp.AddTool(s, &mcp.Tool{Name: "hello"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "hello"}}}, nil, nil
	})
	return s
}

type call func(ctx context.Context, tool string) error

func sdkClient(t mcp.Transport) call {
	s := must(mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil).Connect(context.Background(), t, nil))
	return func(ctx context.Context, tool string) error {
		_, err := s.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: map[string]any{}})
		return err
	}
}

func marksClient(url string) call {
	c := must(client.NewStreamableHttpClient(url))
	if err := c.Start(context.Background()); err != nil {
		panic(err)
	}
	must(c.Initialize(context.Background(), marks.InitializeRequest{Params: marks.InitializeParams{ClientInfo: marks.Implementation{Name: "client", Version: "1"}}}))
	return func(ctx context.Context, tool string) error {
		_, err := c.CallTool(ctx, marks.CallToolRequest{Params: marks.CallToolParams{Name: tool, Arguments: map[string]any{}}})
		return err
	}
}

// try makes a call that is late, waits until the handler was told, and then says how a second one ends.
func try(what string, w wait, c call) string {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	err := c(ctx, "wait")
	told := <-w.told != nil
	// What the client says of the late call to the server may be under way.
	var next error
	for range 10 {
		if next = c(context.Background(), "hello"); next != nil {
			next = c(context.Background(), "hello") // the first one that fails may have been under way
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	line := fmt.Sprintf("%s: late: %v, handler told: %v, next: ", what, errors.Is(err, context.DeadlineExceeded), told)
	switch {
	case next == nil:
		return line + "answered"
	case errors.Is(next, mcp.ErrConnectionClosed) && strings.HasSuffix(next.Error(), `client is closing: sending "notifications/cancelled": Bad Request`):
		return line + "connection closed, for a notification"
	default:
		return line + next.Error()
	}
}

func main() {
	w := wait{make(chan error, 1)}
	var seen []string
	say := func(line string) { fmt.Println(line); seen = append(seen, line) }

	marksHTTP := httptest.NewServer(server.NewStreamableHTTPServer(marksServer(w))).URL + "/mcp"
	say(try("client go-sdk, server mcp-go, HTTP", w, sdkClient(&mcp.StreamableClientTransport{Endpoint: marksHTTP})))
	say(try("client mcp-go, server mcp-go, HTTP", w, marksClient(marksHTTP)))
	for _, stateless := range []bool{false, true} {
		s := sdkServer(w)
		sdkHTTP := httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, &mcp.StreamableHTTPOptions{Stateless: stateless}))
		say(try(fmt.Sprintf("client go-sdk, server go-sdk, HTTP, stateless: %v", stateless), w, sdkClient(&mcp.StreamableClientTransport{Endpoint: sdkHTTP.URL})))
	}
	requests, requestWriter := io.Pipe()
	answers, answerWriter := io.Pipe()
	go server.NewStdioServer(marksServer(w)).Listen(context.Background(), requests, answerWriter)
	say(try("client go-sdk, server mcp-go, pipes", w, sdkClient(&mcp.IOTransport{Reader: answers, Writer: requestWriter})))

	if !slices.Equal(seen, []string{
		"client go-sdk, server mcp-go, HTTP: late: true, handler told: true, next: connection closed, for a notification",
		"client mcp-go, server mcp-go, HTTP: late: true, handler told: true, next: answered",
		"client go-sdk, server go-sdk, HTTP, stateless: false: late: true, handler told: true, next: answered",
		"client go-sdk, server go-sdk, HTTP, stateless: true: late: true, handler told: false, next: answered",
		"client go-sdk, server mcp-go, pipes: late: true, handler told: true, next: answered",
	}) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/modelcontextprotocol/go-sdk github.com/mark3labs/mcp-go
GOTOOLCHAIN=local timeout 120 go run .
