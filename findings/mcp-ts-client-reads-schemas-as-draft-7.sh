#!/usr/bin/env bash
# Guess: the output schema of a tool in MCP is in JSON Schema 2020-12, which is the protocol's dialect since 2025-11-25, and a client that checks results by
# it takes what is valid by it from a server in Go; a schema that the client cannot use costs that tool alone.
# Seen: the client of @modelcontextprotocol/sdk 1.32.2 (npm), which speaks that version with a server of github.com/modelcontextprotocol/go-sdk v1.8.0, reads
# each schema as draft 7, whether $schema says 2020-12 or nothing: a tuple of prefixItems with "items": false or another type is refused for each element, and
# "minContains": 0 counts as one. A schema whose pattern JavaScript takes only without the u flag, as "^\\d{3}\\-\\d{4}$", has listTools fail with "Invalid
# regular expression" for all tools of the server.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @modelcontextprotocol/sdk@1.32.2 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/modelcontextprotocol/go-sdk v1.8.0
EOT
cat > tools.json <<'EOT'
[
  ["plain", {"type": "object", "properties": {"v": {"type": "string"}}}, {"v": "x"}],
  ["declared", {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {"v": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}], "items": false}}}, {"v": ["x", 1]}],
  ["tuple", {"type": "object", "properties": {"v": {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "number"}}}}, {"v": ["x", 1]}],
  ["none-needed", {"type": "object", "properties": {"v": {"type": "array", "contains": {"type": "string"}, "minContains": 0}}}, {"v": []}],
  ["a-pattern", {"type": "object", "properties": {"v": {"type": "string", "pattern": "^\\d{3}\\-\\d{4}$"}}}, {"v": "555-1234"}]
]
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func main() {
	text, err := os.ReadFile("tools.json")
	if err != nil {
		panic(err)
	}
	var tools [][3]json.RawMessage
	if err := json.Unmarshal(text, &tools); err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	serve := func(path string, with func(name string) bool) {
		s := mcp.NewServer(&mcp.Implementation{Name: "server", Version: "1"}, nil)
		for _, tool := range tools {
			var name string
			if err := json.Unmarshal(tool[0], &name); err != nil {
				panic(err)
			}
			if with(name) {
				s.AddTool(&mcp.Tool{Name: name, InputSchema: map[string]any{"type": "object"}, OutputSchema: tool[1]}, func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
					return &mcp.CallToolResult{StructuredContent: tool[2], Content: []mcp.Content{&mcp.TextContent{Text: string(tool[2])}}}, nil
				})
			}
		}
		mux.Handle(path, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, nil))
	}
	serve("/without", func(name string) bool { return name != "a-pattern" })
	serve("/with", func(string) bool { return true })
	s := httptest.NewServer(mux)
	node := exec.Command("node", "main.mjs", s.URL)
	node.Stdout, node.Stderr = os.Stdout, os.Stderr
	if err := node.Run(); err != nil {
		panic(err)
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

for (const server of ['without', 'with']) {
  const client = new Client({ name: 'client', version: '1' });
  const transport = new StreamableHTTPClientTransport(new URL(`${process.argv[2]}/${server}`));
  await client.connect(transport);
  console.log(`${server} the pattern, ${transport.protocolVersion}: ` + await client.listTools().then((list) => `${list.tools.length} tools`, (err) => err.message));
  if (server === 'with') break;
  for (const [name] of JSON.parse(readFileSync('tools.json', 'utf8'))) {
    if (name === 'a-pattern') continue;
    console.log(`${name}: ` + await client.callTool({ name }).then((result) => JSON.stringify(result.structuredContent), (err) => err.message.replace('MCP error -32602: ', '')));
  }
}
process.exit(0);
EOT
cat > want <<'EOT'
without the pattern, 2025-11-25: 4 tools
plain: {"v":"x"}
declared: Structured content does not match the tool's output schema: data/v/0 boolean schema is false, data/v/1 boolean schema is false
tuple: Structured content does not match the tool's output schema: data/v/0 must be number
none-needed: Structured content does not match the tool's output schema: data/v must contain at least 1 valid item(s)
with the pattern, 2025-11-25: Invalid regular expression: /^\d{3}\-\d{4}$/u: Invalid escape
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/modelcontextprotocol/go-sdk
node -p '"@modelcontextprotocol/sdk " + JSON.parse(require("fs").readFileSync("node_modules/@modelcontextprotocol/sdk/package.json")).version'
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
