#!/usr/bin/env bash
# Guess: an object that a program in Go puts in an object store of NATS is got by one in Node, and the other way round, by its name, and so is a link to one:
# the store's form is written down in one document (ADR-20) for all of NATS's clients.
# Seen: with github.com/nats-io/nats.go v1.55.0 (jetstream), @nats-io/obj 3.4.0 (npm) and github.com/nats-io/nats-server/v2 v2.15.3 an object whose name has a
# letter beyond ASCII, "über.wasm", is in the list and found by its own language alone: the other says that there is none, null in Node and ErrObjectNotFound
# in Go, since the name becomes a subject in two ways. Put by both, it is twice in the list. A link that Node made Go does not follow, "object-store meta
# information invalid"; Node follows one of Go's. Other names, with blanks and slashes, empty objects, digests, descriptions, headers and metadata are alike.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @nats-io/transport-node@3.4.0 @nats-io/jetstream@3.4.0 @nats-io/obj@3.4.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/nats-io/nats-server/v2 v2.15.3
	github.com/nats-io/nats.go v1.55.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var names = []string{"plugin.wasm", "a dir/plugin.wasm", "über.wasm"}

func main() {
	s := must(server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, JetStream: true, StoreDir: "store"}))
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		panic("no server")
	}
	defer s.Shutdown()
	ctx := context.Background()
	js := must(jetstream.New(must(nats.Connect(s.ClientURL()))))
	ofGo := must(js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "go"}))
	for _, name := range append([]string{"empty"}, names...) {
		content := []byte("of Go")
		if name == "empty" {
			content = nil
		}
		must(ofGo.Put(ctx, jetstream.ObjectMeta{Name: name}, bytes.NewReader(content)))
	}
	must(ofGo.AddLink(ctx, "link", must(ofGo.GetInfo(ctx, "plugin.wasm"))))
	node := exec.Command("node", append([]string{"main.mjs", s.ClientURL()}, names...)...)
	node.Stdout, node.Stderr = os.Stdout, os.Stderr
	if err := node.Run(); err != nil {
		panic(err)
	}
	ofNode := must(js.ObjectStore(ctx, "node"))
	for _, name := range append(names, "empty", "link") {
		content, err := ofNode.GetBytes(ctx, name)
		fmt.Printf("Go gets %q of Node: %q, %v\n", name, content, err)
	}
	must(ofNode.PutString(ctx, "über.wasm", "of Go"))
	var list []string
	for _, object := range must(ofNode.List(ctx)) {
		list = append(list, object.Name)
	}
	slices.Sort(list)
	fmt.Println("list, the last put by Go as well:", strings.Join(list, ", "))
}
EOT
cat > main.mjs <<'EOT'
import { jetstream } from '@nats-io/jetstream';
import { Objm } from '@nats-io/obj';
import { connect } from '@nats-io/transport-node';

const [, , servers, ...names] = process.argv;
const connection = await connect({ servers });
const stores = new Objm(jetstream(connection));
const ofGo = await stores.open('go');
for (const name of [...names, 'empty', 'link']) {
  const content = await ofGo.getBlob(name);
  console.log(`Node gets ${JSON.stringify(name)} of Go: ${content && JSON.stringify(new TextDecoder().decode(content))}`);
}
const ofNode = await stores.create('node');
for (const name of names) await ofNode.putBlob({ name }, new TextEncoder().encode('of Node'));
await ofNode.putBlob({ name: 'empty' }, new Uint8Array());
await ofNode.link('link', await ofNode.info(names[0]));
await connection.close();
EOT
cat > want <<'EOT'
Node gets "plugin.wasm" of Go: "of Go"
Node gets "a dir/plugin.wasm" of Go: "of Go"
Node gets "über.wasm" of Go: null
Node gets "empty" of Go: ""
Node gets "link" of Go: "of Go"
Go gets "plugin.wasm" of Node: "of Node", <nil>
Go gets "a dir/plugin.wasm" of Node: "of Node", <nil>
Go gets "über.wasm" of Node: "", nats: object not found
Go gets "empty" of Node: "", <nil>
Go gets "link" of Node: "", nats: object-store meta information invalid
list, the last put by Go as well: a dir/plugin.wasm, empty, link, plugin.wasm, über.wasm, über.wasm
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/nats-io/nats.go github.com/nats-io/nats-server/v2
node -p '"@nats-io/obj " + JSON.parse(require("fs").readFileSync("node_modules/@nats-io/obj/package.json")).version'
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
