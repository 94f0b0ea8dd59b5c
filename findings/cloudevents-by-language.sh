#!/usr/bin/env bash
# Guess: an event that a host in Go sends to a plugin in Node over HTTP, or the other way round, is the same event there, whether it goes in the binary or in
# the structured mode of CloudEvents: the same attributes, with the same time, and the same data.
# Seen: github.com/cloudevents/sdk-go/v2 v2.16.2 and cloudevents 10.0.0 (npm) do not keep it. (1) An event without a time, which is optional, has one in Node: that of
# when it was read. (2) Of a time Node keeps the milliseconds. (3) Data of the type application/vnd.plugin+json, which is JSON by the specification, is a text in
# Node, "{\"n\":1}", in both modes, and an object with application/json: in structured mode Go writes it as a text, and in binary mode Node does not
# parse it. (4) Data that is a text and has no content type is sent by Node in binary mode as it is, under application/json, and Go cannot decode it; in
# structured mode it can.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save cloudevents@10.0.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/cloudevents/sdk-go/v2 v2.16.2
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func event(id string) cloudevents.Event {
	e := cloudevents.NewEvent()
	e.SetID(id)
	e.SetSource("/plugins/kv")
	e.SetType("e")
	return e
}

func main() {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := must(cehttp.NewEventFromHTTPRequest(r))
		var data any
		err := e.DataAs(&data)
		fmt.Fprintf(w, "Go reads %v, cannot decode it %t", data, err != nil)
	}))
	node := exec.Command("node", "main.mjs", "http://"+l.Addr().String())
	node.Stderr = os.Stderr
	out := must(node.StdoutPipe())
	if err := node.Start(); err != nil {
		panic(err)
	}
	var port int
	must(fmt.Fscanln(out, &port))
	bare, timed, typed, plain := event("bare"), event("timed"), event("typed"), event("plain")
	timed.SetTime(time.Unix(0, 123456789))
	if err := typed.SetData("application/vnd.plugin+json", map[string]int{"n": 1}); err != nil {
		panic(err)
	}
	if err := plain.SetData("application/json", map[string]int{"n": 1}); err != nil {
		panic(err)
	}
	typed.SetTime(time.Unix(0, 0))
	plain.SetTime(time.Unix(0, 0))
	for _, e := range []cloudevents.Event{bare, timed, typed, plain} {
		for mode, ctx := range []context.Context{binding.WithForceBinary(context.Background()), binding.WithForceStructured(context.Background())} {
			r := must(http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/", port), nil))
			if err := cehttp.WriteRequest(ctx, binding.ToMessage(&e), r); err != nil {
				panic(err)
			}
			answer := must(http.DefaultClient.Do(r))
			fmt.Printf("%s from Go, %s: %s\n", e.ID(), []string{"binary", "structured"}[mode], must(io.ReadAll(answer.Body)))
		}
	}
	answer := must(http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port)))
	fmt.Println(string(must(io.ReadAll(answer.Body))))
	node.Process.Kill()
	node.Wait()
}
EOT
cat > main.mjs <<'EOT'
import { createServer } from 'node:http';
import { CloudEvent, HTTP } from 'cloudevents';

// A GET has a text sent to Go in both modes; else an event is read and told.
const send = async (mode) => {
  const message = HTTP[mode](new CloudEvent({ id: 'text', source: '/plugins/kv', type: 'e', data: 'text' }));
  const answer = await fetch(process.argv[2], { method: 'POST', headers: message.headers, body: message.body });
  return `text from Node, ${mode}: ${await answer.text()}`;
};
const tell = (headers, body) => {
  const event = HTTP.toEvent({ headers, body });
  const now = Math.abs(Date.now() - Date.parse(event.time)) < 60000;
  const wrote = /cloudevents/.test(headers['content-type']) && event.data ? `, written as ${typeof JSON.parse(body).data}` : '';
  return `time ${now ? 'now' : event.time}, data ${typeof event.data} ${JSON.stringify(event.data)}${wrote}`;
};
createServer(async (request, response) => {
  let body = '';
  for await (const chunk of request) body += chunk;
  response.end(request.method === 'GET' ? `${await send('binary')}\n${await send('structured')}` : tell(request.headers, body));
}).listen(0, '127.0.0.1', function () { console.log(this.address().port); });
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/cloudevents/sdk-go/v2
echo "cloudevents $(node -p 'require("./node_modules/cloudevents/package.json").version')"
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding | tee seen
cat > want <<'EOT'
bare from Go, binary: time now, data string ""
bare from Go, structured: time now, data undefined undefined
timed from Go, binary: time 1970-01-01T00:00:00.123Z, data string ""
timed from Go, structured: time 1970-01-01T00:00:00.123Z, data undefined undefined
typed from Go, binary: time 1970-01-01T00:00:00.000Z, data string "{\"n\":1}"
typed from Go, structured: time 1970-01-01T00:00:00.000Z, data string "{\"n\":1}", written as string
plain from Go, binary: time 1970-01-01T00:00:00.000Z, data object {"n":1}
plain from Go, structured: time 1970-01-01T00:00:00.000Z, data object {"n":1}, written as object
text from Node, binary: Go reads <nil>, cannot decode it true
text from Node, structured: Go reads text, cannot decode it false
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
