#!/usr/bin/env bash
# Guess: a stream of server-sent events is read by clients in Go as by those in Node: the standard (WHATWG) says to the letter when there is an event, and Go's libraries name it.
# Seen: an event without data, such as the "event: ping" that keeps connections open, is none by the standard and in eventsource 4.1.1 (npm), and is one whose data is empty in
# github.com/tmaxmax/go-sse v0.12.0 (by its own words fully compliant), github.com/r3labs/sse/v2 v2.10.0 and github.com/launchdarkly/eventsource v1.11.0; so is a line "id: 7" alone,
# which by the standard sets the id of the next event: of npm's and launchdarkly's that has none. r3labs/sse leaves out an event whose data is empty ("data"), hands over the beginning of
# one that the connection's end cut off, and keeps the last id where a line "id" has taken it back. It and launchdarkly/eventsource lose the line behind a byte order mark.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save eventsource@4.1.1 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/launchdarkly/eventsource v1.11.0
	github.com/r3labs/sse/v2 v2.10.0
	github.com/tmaxmax/go-sse v0.12.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	launchdarkly "github.com/launchdarkly/eventsource"
	r3labs "github.com/r3labs/sse/v2"
	"github.com/tmaxmax/go-sse"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

var streams = []string{
	"event: ping\n\ndata: a\n\n",
	"id: 7\n\ndata: a\n\n",
	"data\n\n",
	"\ufeffdata: a\n\n",
	"data: a\n\ndata: cut",
	"id: 1\ndata: a\n\nid\ndata: b\n\n",
}

// serve answers with a stream once, and then with the event "last".
func serve(stream string) *httptest.Server {
	var once sync.Once
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		first := false
		once.Do(func() { first = true })
		if first {
			io.WriteString(w, strings.Replace(stream, "\n", "\nretry: 100\n", 1))
			return
		}
		io.WriteString(w, "data: last\n\n")
	}))
}

func show(id, kind, data string) string { return fmt.Sprintf("(id %q, event %q, data %q)", id, kind, data) }

func main() {
	for _, stream := range streams {
		fmt.Printf("%q\n", stream)
		for _, client := range []struct {
			name string
			read func(ctx context.Context, address string, heard func(id, kind, data string))
		}{
			{"tmaxmax/go-sse", func(ctx context.Context, address string, heard func(string, string, string)) {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
				must(err)
				connection := sse.NewConnection(request)
				connection.SubscribeToAll(func(e sse.Event) { heard(e.LastEventID, e.Type, e.Data) })
				connection.Connect()
			}},
			{"r3labs/sse", func(ctx context.Context, address string, heard func(string, string, string)) {
				r3labs.NewClient(address).SubscribeRawWithContext(ctx, func(e *r3labs.Event) { heard(string(e.ID), string(e.Event), string(e.Data)) })
			}},
			{"launchdarkly/eventsource", func(ctx context.Context, address string, heard func(string, string, string)) {
				stream, err := launchdarkly.SubscribeWithURL(address, launchdarkly.StreamOptionInitialRetry(100*time.Millisecond))
				must(err)
				defer stream.Close()
				for {
					select {
					case e := <-stream.Events:
						heard(e.Id(), e.Event(), e.Data())
					case <-stream.Errors:
					case <-ctx.Done():
						return
					}
				}
			}},
			{"eventsource of npm", func(ctx context.Context, address string, heard func(string, string, string)) {
				node := exec.CommandContext(ctx, "node", "main.mjs", address)
				node.Stderr = os.Stderr
				out, err := node.Output()
				must(err)
				for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
					part := strings.Split(line, "|")
					heard(part[0], part[1], part[2])
				}
			}},
		} {
			server := serve(stream)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			seen := []string{}
			done := make(chan struct{})
			go func() {
				defer close(done)
				client.read(ctx, server.URL, func(id, kind, data string) {
					if data == "last" {
						cancel()
						return
					}
					seen = append(seen, show(id, kind, data))
				})
			}()
			<-done
			cancel()
			server.Close()
			fmt.Printf("  %s: %s\n", client.name, strings.Join(seen, " "))
		}
	}
}
EOT
cat > main.mjs <<'EOT'
import { EventSource } from 'eventsource';

const source = new EventSource(process.argv[2]);
const heard = (e) => {
  console.log(`${e.lastEventId}|${e.type === 'message' ? '' : e.type}|${e.data}`);
  if (e.data === 'last') source.close();
};
source.addEventListener('message', heard);
source.addEventListener('ping', heard);
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/tmaxmax/go-sse github.com/r3labs/sse/v2 github.com/launchdarkly/eventsource
node -p '"eventsource " + JSON.parse(require("fs").readFileSync("node_modules/eventsource/package.json")).version'
GOTOOLCHAIN=local go build -o clients .
timeout 120 ./clients | tee seen
cat > want <<'EOT'
"event: ping\n\ndata: a\n\n"
  tmaxmax/go-sse: (id "", event "ping", data "") (id "", event "", data "a")
  r3labs/sse: (id "", event "ping", data "") (id "", event "", data "a")
  launchdarkly/eventsource: (id "", event "ping", data "") (id "", event "", data "a")
  eventsource of npm: (id "", event "", data "a")
"id: 7\n\ndata: a\n\n"
  tmaxmax/go-sse: (id "7", event "", data "") (id "7", event "", data "a")
  r3labs/sse: (id "7", event "", data "") (id "7", event "", data "a")
  launchdarkly/eventsource: (id "7", event "", data "") (id "", event "", data "a")
  eventsource of npm: (id "", event "", data "a")
"data\n\n"
  tmaxmax/go-sse: (id "", event "", data "")
  r3labs/sse: (id "", event "", data "")
  launchdarkly/eventsource: (id "", event "", data "")
  eventsource of npm: (id "", event "", data "")
"\ufeffdata: a\n\n"
  tmaxmax/go-sse: (id "", event "", data "a")
  r3labs/sse: (id "", event "", data "")
  launchdarkly/eventsource: (id "", event "", data "")
  eventsource of npm: (id "", event "", data "a")
"data: a\n\ndata: cut"
  tmaxmax/go-sse: (id "", event "", data "a")
  r3labs/sse: (id "", event "", data "a") (id "", event "", data "cut")
  launchdarkly/eventsource: (id "", event "", data "a")
  eventsource of npm: (id "", event "", data "a")
"id: 1\ndata: a\n\nid\ndata: b\n\n"
  tmaxmax/go-sse: (id "1", event "", data "a") (id "", event "", data "b")
  r3labs/sse: (id "1", event "", data "a") (id "1", event "", data "b")
  launchdarkly/eventsource: (id "1", event "", data "a") (id "", event "", data "b")
  eventsource of npm: (id "1", event "", data "a") (id "", event "", data "b")
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
