#!/usr/bin/env bash
# Guess: a tool of the Model Context Protocol whose answer is a Go struct is answered with what encoding/json writes of that struct: the schema that the
# SDK makes of the struct, and holds the answer against, describes that, or the SDK refuses the tool when it is added.
# Seen: the schema of github.com/modelcontextprotocol/go-sdk v1.8.0, from github.com/google/jsonschema-go v0.4.3, goes by a field's Go type and not by its
# JSON: a list of integers for []byte, json.RawMessage and uuid.UUID, an object without properties for netip.Addr, an integer for an int with MarshalText
# and for `json:",string"`, a string for json.Number and *big.Int, an object for a nil map. AddTool takes each of them, and every call fails behind the
# handler, "validating tool output", as an error of the protocol. Arguments with such fields are refused just so, before the handler. Of time.Time,
# *big.Float, a nil slice and a nil pointer it is right. A map with integers as keys, which encoding/json writes, is a panic in AddTool.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/google/jsonschema-go v0.4.3
	github.com/google/uuid v1.6.0
	github.com/modelcontextprotocol/go-sdk v1.8.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/google/uuid"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type state int

func (state) MarshalText() ([]byte, error)     { return []byte("ready"), nil }
func (s *state) UnmarshalText(b []byte) error { *s = 1; return nil }

type quoted struct {
	N int64 `json:"n,string"`
}

type box[T any] struct {
	V T `json:"v"`
}

var holds = true

// word is what became of a call.
func word(result *mcp.CallToolResult, err error) string {
	switch {
	case err != nil && strings.Contains(err.Error(), "validating tool output"):
		return "its answer is refused"
	case err != nil:
		return err.Error()
	case result.IsError:
		if text := result.Content[0].(*mcp.TextContent).Text; !strings.Contains(text, "validating") {
			return text
		}
		return "its arguments are refused"
	}
	return "fine"
}

// check has a tool answer with v, and another one that takes v.
func check[T any](name string, v T, want string) {
	written := must(json.Marshal(box[T]{v}))
	server := mcp.NewServer(&mcp.Implementation{Name: "server", Version: "1"}, nil)
	ran := false
	mcp.AddTool(server, &mcp.Tool{Name: "give"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, box[T], error) {
		ran = true
		return nil, box[T]{v}, nil
	})
	mcp.AddTool(server, &mcp.Tool{Name: "take"}, func(context.Context, *mcp.CallToolRequest, box[T]) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{}, nil, nil
	})
	here, there := mcp.NewInMemoryTransports()
	ctx := context.Background()
	must(server.Connect(ctx, there, nil))
	client := must(mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil).Connect(ctx, here, nil))
	defer client.Close()
	give := word(client.CallTool(ctx, &mcp.CallToolParams{Name: "give"}))
	take := word(client.CallTool(ctx, &mcp.CallToolParams{Name: "take", Arguments: json.RawMessage(written)}))
	schema := must(json.Marshal(must(jsonschema.For[box[T]](nil)).Properties["v"]))
	seen := give + ", " + take
	fmt.Printf("%s: JSON %s, schema %s, handler ran %t: %s\n", name, written, schema, ran, seen)
	holds = holds && ran && seen == want
}

func main() {
	const refused, fine = "its answer is refused, its arguments are refused", "fine, fine"
	check("[]byte", []byte("hello"), refused)
	check("json.RawMessage", json.RawMessage(`{"a":1}`), refused)
	check("uuid.UUID", uuid.MustParse("f47ac10b-58cc-0372-8567-0e02b2c3d479"), refused)
	check("netip.Addr", netip.MustParseAddr("127.0.0.1"), refused)
	check("int with MarshalText", state(1), refused)
	check("int64 as string", quoted{5}, refused)
	check("json.Number", json.Number("1.5"), refused)
	check("*big.Int", big.NewInt(5), refused)
	check("nil map", map[string]string(nil), refused)
	check("time.Time", time.Unix(0, 0).UTC(), fine)
	check("*big.Float", big.NewFloat(1.5), fine)
	check("nil slice", []string(nil), fine)
	check("nil pointer", (*string)(nil), fine)
	func() {
		defer func() {
			text := fmt.Sprint(recover())
			fmt.Println("map[int]string: AddTool panics:", text)
			holds = holds && strings.Contains(text, "unsupported map key type int")
		}()
		check("map[int]string", map[int]string{1: "a"}, "")
	}()
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/modelcontextprotocol/go-sdk github.com/google/jsonschema-go
GOTOOLCHAIN=local timeout 120 go run .
