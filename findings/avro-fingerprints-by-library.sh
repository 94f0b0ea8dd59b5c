#!/usr/bin/env bash
# Guess: a schema of Avro has one canonical form and so one fingerprint, by which a reader finds the schema of a message that comes alone (single-object
# encoding): the specification says how it is made, and that what is not needed to read is left out.
# Seen: github.com/hamba/avro/v2 v2.31.0 leaves logicalType in, so that a schema with a time or a decimal has another fingerprint there than with
# github.com/twmb/avro v1.9.1, avsc 5.7.9 and avro-js 1.12.2 (npm): a message that hamba's soe has encoded is refused by twmb's DecodeSingleObject of the same
# schema, and the other way round. avro-js 1.12.2, which is Avro's own, gives a named type that stands in a record no namespace where it has none of its own,
# so that such a schema has another fingerprint than with the three. A type "error" stays one in hamba and avsc, and is a record in twmb and avro-js. avro-js
# needs underscore and does not say so: it cannot be loaded as it is installed.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save avsc@5.7.9 avro-js@1.12.2 underscore@1.13.7 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/hamba/avro/v2 v2.31.0
	github.com/twmb/avro v1.9.1
)
EOT
cat > schemas.json <<'EOT'
{
  "plain": {"type": "record", "name": "event.Plain", "fields": [{"name": "id", "type": "long"}]},
  "time": {"type": "record", "name": "event.Time", "fields": [{"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]},
  "nested": {"type": "record", "name": "event.Outer", "fields": [{"name": "in", "type": {"type": "record", "name": "Inner", "fields": [{"name": "id", "type": "long"}]}}]},
  "error": {"type": "error", "name": "event.Refused", "fields": [{"name": "id", "type": "long"}]}
}
EOT
cat > main.go <<'EOT'
package main

import (
	"crypto/md5"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	hamba "github.com/hamba/avro/v2"
	"github.com/hamba/avro/v2/soe"
	twmb "github.com/twmb/avro"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type (
	plain struct {
		ID int64 `avro:"id"`
	}
	moment struct {
		At time.Time `avro:"at"`
	}
)

func word(err error) string {
	if err != nil {
		return "refused"
	}
	return "read"
}

// alone says whether each library reads the message that the other has encoded alone.
func alone(schema string, in, out any) string {
	h, t := must(soe.NewCodec(must(hamba.Parse(schema)))), must(twmb.Parse(schema))
	_, err := t.DecodeSingleObject(must(h.Encode(in)), out)
	return fmt.Sprintf("hamba's message %s by twmb, twmb's %s by hamba", word(err), word(h.Decode(must(t.AppendSingleObject(nil, in)), out)))
}

func main() {
	var schemas map[string]json.RawMessage
	if err := json.Unmarshal(must(os.ReadFile("schemas.json")), &schemas); err != nil {
		panic(err)
	}
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		h, t := must(hamba.Parse(string(schemas[name]))), must(twmb.Parse(string(schemas[name])))
		fmt.Printf("%s hamba %x %s\n", name, md5.Sum([]byte(h.String())), h)
		fmt.Printf("%s twmb %x %s\n", name, md5.Sum(t.Canonical()), t.Canonical())
	}
	fmt.Println("plain:", alone(string(schemas["plain"]), &plain{1}, &plain{}))
	fmt.Println("time:", alone(string(schemas["time"]), &moment{time.UnixMilli(1)}, &moment{}))
}
EOT
cat > main.mjs <<'EOT'
import avrojs from 'avro-js';
import avsc from 'avsc';
import { readFileSync } from 'node:fs';

const schemas = JSON.parse(readFileSync('schemas.json', 'utf8'));
for (const name of Object.keys(schemas).sort()) {
  const a = avsc.Type.forSchema(schemas[name]);
  const b = avrojs.parse(schemas[name]);
  console.log(name, 'avsc', a.fingerprint('md5').toString('hex'), JSON.stringify(a.schema()));
  console.log(name, 'avro-js', b.getFingerprint('md5').toString('hex'), b.getSchema());
}
EOT
cat > want <<'EOT'
false
error hamba 57bf757a82744ba0ad28173a2f82db59 {"name":"event.Refused","type":"error","fields":[{"name":"id","type":"long"}]}
error twmb d519c2d13826222f96a4fce6da582e6c {"name":"event.Refused","type":"record","fields":[{"name":"id","type":"long"}]}
nested hamba f5a7c874ca6f642a162a1ee1f8ead805 {"name":"event.Outer","type":"record","fields":[{"name":"in","type":{"name":"event.Inner","type":"record","fields":[{"name":"id","type":"long"}]}}]}
nested twmb f5a7c874ca6f642a162a1ee1f8ead805 {"name":"event.Outer","type":"record","fields":[{"name":"in","type":{"name":"event.Inner","type":"record","fields":[{"name":"id","type":"long"}]}}]}
plain hamba 2b9910a9a2cacbc926c1b58fe274fc65 {"name":"event.Plain","type":"record","fields":[{"name":"id","type":"long"}]}
plain twmb 2b9910a9a2cacbc926c1b58fe274fc65 {"name":"event.Plain","type":"record","fields":[{"name":"id","type":"long"}]}
time hamba 32218cc015a067e869263ff7c2484dc5 {"name":"event.Time","type":"record","fields":[{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}
time twmb 419fb6bfd92e93647410181eb0f12d3e {"name":"event.Time","type":"record","fields":[{"name":"at","type":"long"}]}
plain: hamba's message read by twmb, twmb's read by hamba
time: hamba's message refused by twmb, twmb's refused by hamba
error avsc 57bf757a82744ba0ad28173a2f82db59 {"name":"event.Refused","type":"error","fields":[{"name":"id","type":"long"}]}
error avro-js d519c2d13826222f96a4fce6da582e6c {"name":"event.Refused","type":"record","fields":[{"name":"id","type":"long"}]}
nested avsc f5a7c874ca6f642a162a1ee1f8ead805 {"name":"event.Outer","type":"record","fields":[{"name":"in","type":{"name":"event.Inner","type":"record","fields":[{"name":"id","type":"long"}]}}]}
nested avro-js 518bc22fd4d4a48cf8b17e8f258e1471 {"name":"event.Outer","type":"record","fields":[{"name":"in","type":{"name":"Inner","type":"record","fields":[{"name":"id","type":"long"}]}}]}
plain avsc 2b9910a9a2cacbc926c1b58fe274fc65 {"name":"event.Plain","type":"record","fields":[{"name":"id","type":"long"}]}
plain avro-js 2b9910a9a2cacbc926c1b58fe274fc65 {"name":"event.Plain","type":"record","fields":[{"name":"id","type":"long"}]}
time avsc 419fb6bfd92e93647410181eb0f12d3e {"name":"event.Time","type":"record","fields":[{"name":"at","type":"long"}]}
time avro-js 419fb6bfd92e93647410181eb0f12d3e {"name":"event.Time","type":"record","fields":[{"name":"at","type":"long"}]}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/hamba/avro/v2 github.com/twmb/avro
node -p '["avsc", "avro-js"].map((name) => name + " " + JSON.parse(require("fs").readFileSync(`node_modules/${name}/package.json`)).version).join(", ")'
node -p '"underscore" in (JSON.parse(require("fs").readFileSync("node_modules/avro-js/package.json")).dependencies ?? {})' > seen
GOTOOLCHAIN=local go run . >> seen
node main.mjs >> seen
cat seen
cmp -s seen want || { echo CHANGED; exit 1; }
