#!/usr/bin/env bash
# Guess: a resource template of MCP, such as "note://all{?tag,limit}", serves the same URIs from a server in Go as from one in TypeScript: it is a URI
# template of RFC 6570, in which each variable may be missing, and what a client in either language expands from it is a resource of it.
# Seen: github.com/modelcontextprotocol/go-sdk v1.8.0 and github.com/mark3labs/mcp-go v1.2.1 find what RFC 6570 expands to, McpServer of
# @modelcontextprotocol/sdk 1.32.2 (npm) says "not found" to much of it. (1) A variable that is missing: {?tag,limit} serves both in this order and no other,
# {&tag}, {/path*}, {.ext} and {#part} nothing without it. (2) A path of more than one part, {/path*}, and a list, {a,b}, which is one text that may have no
# comma. (3) What its handler has is as it came: "a%20b", where mcp-go gives "a b", "#top" for a fragment and ";v" as the name in {;v}.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @modelcontextprotocol/sdk@1.32.2 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/mark3labs/mcp-go v1.2.1
	github.com/modelcontextprotocol/go-sdk v1.8.0
)

require (
	github.com/google/jsonschema-go v0.4.3 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.2 // indirect
	github.com/segmentio/asm v1.1.3 // indirect
	github.com/segmentio/encoding v0.5.4 // indirect
	github.com/spf13/cast v1.7.1 // indirect
	github.com/yosida95/uritemplate/v3 v3.0.2 // indirect
	golang.org/x/oauth2 v0.35.0 // indirect
	golang.org/x/sync v0.20.0 // indirect
	golang.org/x/sys v0.41.0 // indirect
	golang.org/x/text v0.14.0 // indirect
	golang.org/x/time v0.15.0 // indirect
)
EOT
cat > cases.json <<'EOT'
[["note://{id}", ["note://1", "note://a%20b", "note://a,b"]],
 ["note://{a,b}", ["note://1,2"]],
 ["note://all{?tag,limit}", ["note://all?tag=x&limit=1", "note://all?tag=x", "note://all?limit=1", "note://all"]],
 ["note://all?kind=a{&tag}", ["note://all?kind=a&tag=x", "note://all?kind=a"]],
 ["doc://root{/path*}", ["doc://root/a", "doc://root/a/b", "doc://root"]],
 ["doc://x{.ext}", ["doc://x.json", "doc://x"]],
 ["doc://x{#part}", ["doc://x#top", "doc://x"]],
 ["doc://x{;v}", ["doc://x;v=1"]]]
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sdk returns what a client of go-sdk has of its server.
func sdk(ctx context.Context, template, uri string) string {
	s := mcp.NewServer(&mcp.Implementation{Name: "server", Version: "1"}, nil)
	s.AddResourceTemplate(&mcp.ResourceTemplate{Name: "t", URITemplate: template}, func(_ context.Context, r *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: r.Params.URI, Text: "found"}}}, nil
	})
	here, there := mcp.NewInMemoryTransports()
	must(s.Connect(ctx, there, nil))
	session := must(mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil).Connect(ctx, here, nil))
	defer session.Close()
	var refusal *jsonrpc.Error
	switch _, err := session.ReadResource(ctx, &mcp.ReadResourceParams{URI: uri}); {
	case errors.As(err, &refusal):
		return "not found"
	case err != nil:
		panic(err)
	}
	return "found"
}

// mark3labs returns what the server of mcp-go answers.
func mark3labs(ctx context.Context, template, uri string) string {
	s := server.NewMCPServer("server", "1", server.WithResourceCapabilities(false, false))
	s.AddResourceTemplate(mcpgo.NewResourceTemplate(template, "t"), func(_ context.Context, r mcpgo.ReadResourceRequest) ([]mcpgo.ResourceContents, error) {
		return []mcpgo.ResourceContents{mcpgo.TextResourceContents{URI: uri, Text: string(must(json.Marshal(r.Params.Arguments)))}}, nil
	})
	request := map[string]any{"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": map[string]any{"uri": uri}}
	var answer struct {
		Result struct{ Contents []struct{ Text string } }
	}
	if err := json.Unmarshal(must(json.Marshal(s.HandleMessage(ctx, must(json.Marshal(request))))), &answer); err != nil {
		panic(err)
	}
	if len(answer.Result.Contents) == 1 {
		return answer.Result.Contents[0].Text
	}
	return "not found"
}

func main() {
	var cases [][2]json.RawMessage
	if err := json.Unmarshal(must(os.ReadFile("cases.json")), &cases); err != nil {
		panic(err)
	}
	for _, c := range cases {
		var template string
		var uris []string
		if err := errors.Join(json.Unmarshal(c[0], &template), json.Unmarshal(c[1], &uris)); err != nil {
			panic(err)
		}
		for _, uri := range uris {
			fmt.Printf("%s %s: go-sdk %s, mcp-go %s,\n", template, uri, sdk(context.Background(), template, uri), mark3labs(context.Background(), template, uri))
		}
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { InMemoryTransport } from '@modelcontextprotocol/sdk/inMemory.js';
import { McpServer, ResourceTemplate } from '@modelcontextprotocol/sdk/server/mcp.js';

for (const [template, uris] of JSON.parse(readFileSync('cases.json', 'utf8'))) {
  const server = new McpServer({ name: 'server', version: '1' });
  server.registerResource('t', new ResourceTemplate(template, { list: undefined }), {}, (uri, variables) => ({ contents: [{ uri: uri.href, text: JSON.stringify(variables) }] }));
  const client = new Client({ name: 'client', version: '1' });
  const [here, there] = InMemoryTransport.createLinkedPair();
  await Promise.all([server.connect(there), client.connect(here)]);
  for (const uri of uris) console.log('TypeScript ' + await client.readResource({ uri }).then((r) => r.contents[0].text, () => 'not found'));
}
EOT
cat > want <<'EOT'
note://{id} note://1: go-sdk found, mcp-go {"id":["1"]}, TypeScript {"id":"1"}
note://{id} note://a%20b: go-sdk found, mcp-go {"id":["a b"]}, TypeScript {"id":"a%20b"}
note://{id} note://a,b: go-sdk found, mcp-go {"id":["a","b"]}, TypeScript not found
note://{a,b} note://1,2: go-sdk found, mcp-go {"a":["1"],"b":["2"]}, TypeScript not found
note://all{?tag,limit} note://all?tag=x&limit=1: go-sdk found, mcp-go {"limit":["1"],"tag":["x"]}, TypeScript {"tag":"x","limit":"1"}
note://all{?tag,limit} note://all?tag=x: go-sdk found, mcp-go {"tag":["x"]}, TypeScript not found
note://all{?tag,limit} note://all?limit=1: go-sdk found, mcp-go {"limit":["1"]}, TypeScript not found
note://all{?tag,limit} note://all: go-sdk found, mcp-go {}, TypeScript not found
note://all?kind=a{&tag} note://all?kind=a&tag=x: go-sdk found, mcp-go {"tag":["x"]}, TypeScript {"tag":"x"}
note://all?kind=a{&tag} note://all?kind=a: go-sdk found, mcp-go {}, TypeScript not found
doc://root{/path*} doc://root/a: go-sdk found, mcp-go {"path":["a"]}, TypeScript {"path":"a"}
doc://root{/path*} doc://root/a/b: go-sdk found, mcp-go {"path":["a","b"]}, TypeScript not found
doc://root{/path*} doc://root: go-sdk found, mcp-go {}, TypeScript not found
doc://x{.ext} doc://x.json: go-sdk found, mcp-go {"ext":["json"]}, TypeScript {"ext":"json"}
doc://x{.ext} doc://x: go-sdk found, mcp-go {}, TypeScript not found
doc://x{#part} doc://x#top: go-sdk found, mcp-go {"part":["top"]}, TypeScript {"part":"#top"}
doc://x{#part} doc://x: go-sdk found, mcp-go {}, TypeScript not found
doc://x{;v} doc://x;v=1: go-sdk found, mcp-go {"v":["1"]}, TypeScript {";v":";v=1"}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/modelcontextprotocol/go-sdk github.com/mark3labs/mcp-go
node -p '"@modelcontextprotocol/sdk " + JSON.parse(require("fs").readFileSync("node_modules/@modelcontextprotocol/sdk/package.json")).version'
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding > go.seen
timeout 60 node main.mjs > ts.seen
paste -d ' ' go.seen ts.seen | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
