#!/usr/bin/env bash
# Guess: a message of protobuf that a host in Go puts on Kafka in the wire format of Confluent's schema registry a plugin in Node reads, and the other way round: behind the schema's id stands which
# message of the .proto file it is, as a list of indexes, or one byte of zero for the first.
# Seen: @kafkajs/confluent-schema-registry 4.1.0 (npm) knows no indexes. It writes none, so that github.com/twmb/franz-go/pkg/sr v1.8.0 takes the message's own first bytes for them and refuses it;
# and where it reads it drops leading zeros, which is right for the first message of a file and for no other: of the second one, or of one in another, it refuses what Go writes ("invalid wire type"), with the name
# of that message set (messageName) too.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @kafkajs/confluent-schema-registry@4.1.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/twmb/franz-go/pkg/sr v1.8.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/sr"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// serde is for one message of plugins.proto, each of which has the form of a StringValue.
func serde(index ...int) *sr.Serde {
	var s sr.Serde
	s.Register(1, &wrapperspb.StringValue{}, sr.Index(index...),
		sr.EncodeFn(func(v any) ([]byte, error) { return proto.Marshal(v.(*wrapperspb.StringValue)) }),
		sr.DecodeFn(func(b []byte, v any) error { return proto.Unmarshal(b, v.(*wrapperspb.StringValue)) }))
	return &s
}

func main() {
	if os.Args[1] == "write" {
		texts := map[string]string{}
		for name, index := range map[string][]int{"Plugin": {0}, "Host": {1}, "Plugin.Version": {0, 0}} {
			data, err := serde(index...).Encode(wrapperspb.String("hello"))
			must(err)
			texts[name] = hex.EncodeToString(data)
		}
		out, err := json.Marshal(texts)
		must(err)
		must(os.WriteFile("go.json", out, 0o600))
		return
	}
	data, err := os.ReadFile("node.json")
	must(err)
	texts := map[string]string{}
	must(json.Unmarshal(data, &texts))
	for _, name := range []string{"Plugin", "Host", "Plugin.Version"} {
		message, err := hex.DecodeString(texts[name])
		must(err)
		index := map[string][]int{"Plugin": {0}, "Host": {1}, "Plugin.Version": {0, 0}}[name]
		var value wrapperspb.StringValue
		err = serde(index...).Decode(message, &value)
		fmt.Printf("Go reads Node's %s, %x: %q, %v\n", name, message, value.Value, err)
	}
}
EOT
cat > main.cjs <<'EOT'
const { readFileSync, writeFileSync } = require('node:fs');
const { SchemaRegistry, SchemaType } = require('@kafkajs/confluent-schema-registry');

const schema = `syntax = "proto3";
message Plugin { string name = 1; message Version { string text = 1; } }
message Host { string name = 1; }`;
const server = require('node:http').createServer((_, answer) => {
  answer.setHeader('content-type', 'application/vnd.schemaregistry.v1+json');
  answer.end(JSON.stringify({ schemaType: 'PROTOBUF', schema }));
}).listen(0, '127.0.0.1', async () => {
  const texts = {};
  for (const [name, text] of Object.entries(JSON.parse(readFileSync('go.json'))).sort()) {
    const registry = new SchemaRegistry({ host: `http://127.0.0.1:${server.address().port}` }, { [SchemaType.PROTOBUF]: { messageName: name } });
    const seen = await registry.decode(Buffer.from(text, 'hex')).then((message) => JSON.stringify(message), (e) => `refused, ${e.message}`);
    console.log(`Node reads Go's ${name}, ${text}: ${seen}`);
    texts[name] = (await registry.encode(1, name === 'Plugin.Version' ? { text: 'hello' } : { name: 'hello' })).toString('hex');
  }
  writeFileSync('node.json', JSON.stringify(texts));
  process.exit(0);
});
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/twmb/franz-go/pkg/sr
node -p '"@kafkajs/confluent-schema-registry " + require("./node_modules/@kafkajs/confluent-schema-registry/package.json").version'
GOTOOLCHAIN=local go build -o registry .
timeout 60 ./registry write
{
  timeout 120 node main.cjs
  timeout 60 ./registry read
} | tee seen
cat > want <<'EOT'
Node reads Go's Host, 000000000102020a0568656c6c6f: refused, invalid wire type 4 at offset 7
Node reads Go's Plugin, 0000000001000a0568656c6c6f: {"name":"hello"}
Node reads Go's Plugin.Version, 00000000010400000a0568656c6c6f: refused, invalid wire type 4 at offset 1
Go reads Node's Plugin, 00000000010a0568656c6c6f: "", registration is missing for encode/decode
Go reads Node's Host, 00000000010a0568656c6c6f: "", registration is missing for encode/decode
Go reads Node's Plugin.Version, 00000000010a0568656c6c6f: "", registration is missing for encode/decode
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
