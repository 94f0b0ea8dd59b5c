#!/usr/bin/env bash
# Guess: a client and a server of the Model Context Protocol in Go agree on a version that both have, whichever SDK each is built on: the server names what
# it takes, and an older client or server is served as before.
# Seen: a client of github.com/mark3labs/mcp-go v1.2.1 over HTTP asks the server first (server/discover, of version 2026-07-28). A server of the official
# SDK, github.com/modelcontextprotocol/go-sdk v1.8.0, that keeps sessions, as it does by default, answers with the versions that it supports, 2025-11-25
# and older. The client goes by the fact that there is an answer: Initialize succeeds, says 2026-07-28, and every call is refused, "unsupported protocol
# version". Calls are answered with the version 2025-11-25 named in InitializeRequest, with StreamableHTTPOptions.Stateless, where the server has the new
# version, and over pipes, where it has it as well. The SDK's own client over HTTP falls back to 2025-11-25.
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
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	marks "github.com/mark3labs/mcp-go/mcp"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newServer() *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "server", Version: "1"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: "hello"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "hello"}}}, nil, nil
	})
	return s
}

func serve(stateless bool) string {
	s := newServer()
	return httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, &mcp.StreamableHTTPOptions{Stateless: stateless})).URL
}

// supported are the versions that a server names when it is asked as a client of the new version asks.
func supported(url string) []string {
	const version = "2026-07-28"
	body := `{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/clientCapabilities":{},` +
		`"io.modelcontextprotocol/clientInfo":{"name":"client","version":"1"},"io.modelcontextprotocol/protocolVersion":"` + version + `"}}}`
	request := must(http.NewRequest(http.MethodPost, url, strings.NewReader(body)))
	for name, value := range map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Mcp-Method": "server/discover", "Mcp-Protocol-Version": version} {
		request.Header.Set(name, value)
	}
	response := must(http.DefaultClient.Do(request))
	defer response.Body.Close()
	answer := must(io.ReadAll(response.Body))
	var message struct {
		Result struct {
			SupportedVersions []string `json:"supportedVersions"`
		} `json:"result"`
	}
	if err := json.Unmarshal(answer[bytes.IndexByte(answer, '{'):], &message); err != nil {
		panic(err)
	}
	return message.Result.SupportedVersions
}

func outcome(version string, err error) string {
	switch {
	case err == nil:
		return version + ", answered"
	case strings.Contains(err.Error(), "unsupported protocol version"):
		return version + ", unsupported protocol version"
	default:
		return version + ", " + err.Error()
	}
}

func withMarks(t transport.Interface, version string) string {
	ctx := context.Background()
	c := client.NewClient(t)
	if err := c.Start(ctx); err != nil {
		panic(err)
	}
	hello := must(c.Initialize(ctx, marks.InitializeRequest{Params: marks.InitializeParams{ProtocolVersion: version, ClientInfo: marks.Implementation{Name: "client", Version: "1"}}}))
	_, err := c.CallTool(ctx, marks.CallToolRequest{Params: marks.CallToolParams{Name: "hello", Arguments: map[string]any{}}})
	return outcome(hello.ProtocolVersion, err)
}

func withSDK(t mcp.Transport) string {
	ctx := context.Background()
	s := must(mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil).Connect(ctx, t, nil))
	_, err := s.CallTool(ctx, &mcp.CallToolParams{Name: "hello", Arguments: map[string]any{}})
	return outcome(s.InitializeResult().ProtocolVersion, err)
}

func main() {
	var seen []string
	say := func(words ...any) {
		line := strings.TrimSpace(fmt.Sprintln(words...))
		fmt.Println(line)
		seen = append(seen, line)
	}
	for _, stateless := range []bool{false, true} {
		url := serve(stateless)
		say("stateless:", stateless, "- the server supports", supported(url))
		say("stateless:", stateless, "- client mcp-go:", withMarks(must(transport.NewStreamableHTTP(url)), ""))
		say("stateless:", stateless, "- client mcp-go, 2025-11-25 named:", withMarks(must(transport.NewStreamableHTTP(url)), "2025-11-25"))
		say("stateless:", stateless, "- client go-sdk:", withSDK(&mcp.StreamableClientTransport{Endpoint: url}))
	}
	requests, requestWriter := io.Pipe()
	answers, answerWriter := io.Pipe()
	go newServer().Run(context.Background(), &mcp.IOTransport{Reader: requests, Writer: answerWriter})
	say("pipes - client mcp-go:", withMarks(transport.NewIO(answers, requestWriter, io.NopCloser(strings.NewReader(""))), ""))

	if !slices.Equal(seen, []string{
		"stateless: false - the server supports [2025-11-25 2025-06-18 2025-03-26 2024-11-05]",
		"stateless: false - client mcp-go: 2026-07-28, unsupported protocol version",
		"stateless: false - client mcp-go, 2025-11-25 named: 2025-11-25, answered",
		"stateless: false - client go-sdk: 2025-11-25, answered",
		"stateless: true - the server supports [2026-07-28 2025-11-25 2025-06-18 2025-03-26 2024-11-05]",
		"stateless: true - client mcp-go: 2026-07-28, answered",
		"stateless: true - client mcp-go, 2025-11-25 named: 2025-11-25, answered",
		"stateless: true - client go-sdk: 2026-07-28, answered",
		"pipes - client mcp-go: 2026-07-28, answered",
	}) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/modelcontextprotocol/go-sdk github.com/mark3labs/mcp-go
GOTOOLCHAIN=local timeout 120 go run .
