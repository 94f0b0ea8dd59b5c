#!/usr/bin/env bash
# Guess: a request that JSON-RPC 2.0 allows is answered by the libraries of Go and Node for it alike, apart from the words of an error: the specification is
# four pages, with examples of requests and of their answers.
# Seen: of github.com/creachadair/jrpc2 v1.3.6 (jhttp), github.com/gorilla/rpc v1.2.1 (v2/json2), jayson 5.0.0 and json-rpc-2.0 1.8.1 (npm), each behind HTTP:
# (1) gorilla takes no batch, -32700, and no params by position for a method with names, -32600; a method that is not there has -32000 for -32601. (2) jrpc2
# refuses "params": [] and {} for a method without any, -32602, and a member that it does not know, -32600. (3) An id beyond 2^53 comes back as another one
# from both in Node: its caller waits for an answer that came. (4) A request with "id": null is a notification for three and has no answer, json-rpc-2.0
# answers it. (5) A batch of one is answered by an object, and not by an array, from json-rpc-2.0. (6) A notification has status 204 and no body from three,
# and 200 from gorilla.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save jayson@5.0.0 json-rpc-2.0@1.8.1 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/creachadair/jrpc2 v1.3.6
	github.com/gorilla/rpc v1.2.1
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"

	"github.com/creachadair/jrpc2/handler"
	"github.com/creachadair/jrpc2/jhttp"
	"github.com/gorilla/rpc/v2"
	"github.com/gorilla/rpc/v2/json2"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Math is gorilla's service, whose methods are Math.Subtract and Math.Nothing.
type Math struct{}

type Numbers struct {
	Minuend    int `json:"minuend"`
	Subtrahend int `json:"subtrahend"`
}

func (Math) Subtract(_ *http.Request, n *Numbers, difference *int) error {
	*difference = n.Minuend - n.Subtrahend
	return nil
}

func (Math) Nothing(*http.Request, *struct{}, *any) error { return nil }

// answer is the status and the body without what an error says.
func answer(url, request string) string {
	r := must(http.Post(url, "application/json", strings.NewReader(request)))
	defer r.Body.Close()
	body := must(io.ReadAll(r.Body))
	type one struct {
		ID     json.RawMessage
		Result json.RawMessage
		Error  *struct{ Code int }
	}
	say := func(o one) string {
		if o.Error != nil {
			return fmt.Sprintf("id %s: %d", o.ID, o.Error.Code)
		}
		return fmt.Sprintf("id %s: %s", o.ID, o.Result)
	}
	var single one
	var several []one
	switch {
	case len(body) == 0:
		return fmt.Sprint(r.StatusCode)
	case json.Unmarshal(body, &several) == nil:
		var said []string
		for _, o := range several {
			said = append(said, say(o))
		}
		return "[" + strings.Join(said, ", ") + "]"
	case json.Unmarshal(body, &single) == nil:
		return say(single)
	}
	return string(body)
}

func main() {
	bridge := jhttp.NewBridge(handler.Map{
		"Math.Subtract": handler.NewPos(func(_ context.Context, minuend, subtrahend int) int { return minuend - subtrahend }, "minuend", "subtrahend"),
		"Math.Nothing":  handler.New(func(context.Context) error { return nil }),
	}, nil)
	defer bridge.Close()
	gorilla := rpc.NewServer()
	gorilla.RegisterCodec(json2.NewCodec(), "application/json")
	if err := gorilla.RegisterService(Math{}, "Math"); err != nil {
		panic(err)
	}
	node := exec.Command("node", "main.mjs")
	node.Stderr = os.Stderr
	in, out := must(node.StdinPipe()), must(node.StdoutPipe())
	if err := node.Start(); err != nil {
		panic(err)
	}
	lines := bufio.NewReader(out)
	servers := [][2]string{
		{"jrpc2", httptest.NewServer(bridge).URL}, {"gorilla", httptest.NewServer(gorilla).URL},
		{"jayson", strings.TrimSpace(must(lines.ReadString('\n')))}, {"json-rpc-2.0", strings.TrimSpace(must(lines.ReadString('\n')))},
	}
	const subtract = `"jsonrpc": "2.0", "method": "Math.Subtract", "params": `
	for _, request := range []string{
		`{` + subtract + `{"minuend": 42, "subtrahend": 23}, "id": 1}`,
		`{` + subtract + `[42, 23], "id": 1}`,
		`{` + subtract + `{"minuend": 42, "subtrahend": 23}, "id": 9007199254740993}`,
		`{` + subtract + `{"minuend": 42, "subtrahend": 23}, "id": null}`,
		`{` + subtract + `{"minuend": 42, "subtrahend": 23}}`,
		`{` + subtract + `{"minuend": 42, "subtrahend": 23}, "id": 1, "trace": "x"}`,
		`[{` + subtract + `{"minuend": 42, "subtrahend": 23}, "id": 1}]`,
		`{"jsonrpc": "2.0", "method": "Math.Nothing", "id": 1}`,
		`{"jsonrpc": "2.0", "method": "Math.Nothing", "params": [], "id": 1}`,
		`{"jsonrpc": "2.0", "method": "Math.Nothing", "params": {}, "id": 1}`,
		`{"jsonrpc": "2.0", "method": "Math.Other", "id": 1}`,
	} {
		fmt.Print(strings.ReplaceAll(request, `"jsonrpc": "2.0", "method": `, ""))
		for _, s := range servers {
			fmt.Printf(" | %s %s", s[0], answer(s[1], request))
		}
		fmt.Println()
	}
	in.Close()
	if err := node.Wait(); err != nil {
		panic(err)
	}
}
EOT
cat > main.mjs <<'EOT'
import jayson from 'jayson/promise/index.js';
import { JSONRPCServer } from 'json-rpc-2.0';
import http from 'node:http';
import { json } from 'node:stream/consumers';

const subtract = (params) => (Array.isArray(params) ? params[0] - params[1] : params.minuend - params.subtrahend);
const first = new jayson.Server({ 'Math.Subtract': async (params) => subtract(params), 'Math.Nothing': async () => null }).http();
const rpc = new JSONRPCServer();
rpc.addMethod('Math.Subtract', subtract);
rpc.addMethod('Math.Nothing', () => null);
const second = http.createServer(async (request, response) => {
  const answer = await rpc.receive(await json(request));
  response.writeHead(answer ? 200 : 204).end(answer ? JSON.stringify(answer) : undefined);
});
for (const server of [first, second]) await new Promise((done) => server.listen(0, '127.0.0.1', () => done(console.log(`http://127.0.0.1:${server.address().port}`))));
process.stdin.resume().on('end', () => process.exit());
EOT
cat > want <<'EOT'
{"Math.Subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 1} | jrpc2 id 1: 19 | gorilla id 1: 19 | jayson id 1: 19 | json-rpc-2.0 id 1: 19
{"Math.Subtract", "params": [42, 23], "id": 1} | jrpc2 id 1: 19 | gorilla id 1: -32600 | jayson id 1: 19 | json-rpc-2.0 id 1: 19
{"Math.Subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 9007199254740993} | jrpc2 id 9007199254740993: 19 | gorilla id 9007199254740993: 19 | jayson id 9007199254740992: 19 | json-rpc-2.0 id 9007199254740992: 19
{"Math.Subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": null} | jrpc2 204 | gorilla 200 | jayson 204 | json-rpc-2.0 id null: 19
{"Math.Subtract", "params": {"minuend": 42, "subtrahend": 23}} | jrpc2 204 | gorilla 200 | jayson 204 | json-rpc-2.0 204
{"Math.Subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 1, "trace": "x"} | jrpc2 id 1: -32600 | gorilla id 1: 19 | jayson id 1: 19 | json-rpc-2.0 id 1: 19
[{"Math.Subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 1}] | jrpc2 [id 1: 19] | gorilla id null: -32700 | jayson [id 1: 19] | json-rpc-2.0 id 1: 19
{"Math.Nothing", "id": 1} | jrpc2 id 1: null | gorilla id 1: null | jayson id 1: null | json-rpc-2.0 id 1: null
{"Math.Nothing", "params": [], "id": 1} | jrpc2 id 1: -32602 | gorilla id 1: null | jayson id 1: null | json-rpc-2.0 id 1: null
{"Math.Nothing", "params": {}, "id": 1} | jrpc2 id 1: -32602 | gorilla id 1: null | jayson id 1: null | json-rpc-2.0 id 1: null
{"Math.Other", "id": 1} | jrpc2 id 1: -32601 | gorilla id 1: -32000 | jayson id 1: -32601 | json-rpc-2.0 id 1: -32601
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/creachadair/jrpc2 github.com/gorilla/rpc
node -p '["jayson", "json-rpc-2.0"].map((name) => name + " " + JSON.parse(require("fs").readFileSync(`node_modules/${name}/package.json`)).version).join(", ")'
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
