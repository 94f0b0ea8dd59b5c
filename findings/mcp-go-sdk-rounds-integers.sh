#!/usr/bin/env bash
# Guess: an int64 of a tool's arguments in the Model Context Protocol reaches a tool whose input is a Go struct with an int64 as it was sent: encoding/json
# reads and writes all 64 bits, and the schema that the SDK made of the struct says integer.
# Seen: with github.com/modelcontextprotocol/go-sdk v1.8.0 on both sides and mcp.AddTool, 9007199254740993 arrives as 9007199254740992, without an error: the
# SDK reads the arguments into a map, for the schema's defaults, before it reads them into the struct, and has float64 there. So is the answer rounded that
# the tool returns as a struct, in the text that goes beside it as well: of 9007199254740995 the caller has ...996 in both. Server.AddTool, which leaves
# arguments as they came, gives the tool all digits. An id of 64 bits, as databases have them, is that of another thing then.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/modelcontextprotocol/go-sdk v1.8.0
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type message struct {
	ID int64 `json:"id"`
}

func main() {
	ctx := context.Background()
	var seen []string
	server := mcp.NewServer(&mcp.Implementation{Name: "server", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "typed"}, func(_ context.Context, _ *mcp.CallToolRequest, in message) (*mcp.CallToolResult, message, error) {
		seen = append(seen, fmt.Sprint("AddTool has ", in.ID))
		return nil, message{ID: 9007199254740995}, nil
	})
	server.AddTool(&mcp.Tool{Name: "raw", InputSchema: map[string]any{"type": "object"}}, func(_ context.Context, r *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		var in message
		if err := json.Unmarshal(r.Params.Arguments, &in); err != nil {
			return nil, err
		}
		seen = append(seen, fmt.Sprint("Server.AddTool has ", in.ID))
		return &mcp.CallToolResult{}, nil
	})
	here, there := mcp.NewInMemoryTransports()
	must(server.Connect(ctx, there, nil))
	session := must(mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil).Connect(ctx, here, nil))
	sent := message{ID: 9007199254740993}
	result := must(session.CallTool(ctx, &mcp.CallToolParams{Name: "typed", Arguments: sent}))
	answer := result.StructuredContent.(map[string]any)["id"]
	seen = append(seen, fmt.Sprintf("the caller has %.0f (%T), and the text %s", answer, answer, result.Content[0].(*mcp.TextContent).Text))
	must(session.CallTool(ctx, &mcp.CallToolParams{Name: "raw", Arguments: sent}))
	want := []string{
		"AddTool has 9007199254740992",
		`the caller has 9007199254740996 (float64), and the text {"id":9007199254740996}`,
		"Server.AddTool has 9007199254740993",
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
go list -m github.com/modelcontextprotocol/go-sdk
GOTOOLCHAIN=local timeout 120 go run .
