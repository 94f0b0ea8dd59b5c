#!/usr/bin/env bash
# Guess: a JSON Schema that a library of Node makes of its own formats is one in Go: it has a dialect's name, and nobody wrote a pattern by hand.
# Seen: zod 4.6.7, @valibot/to-json-schema 1.8.0 with valibot 1.5.0 and arktype 2.2.10 (npm) write for some formats a "pattern" with (?= or (?!, beside "format" or without,
# which regular expressions of Go have not: zod's z.hostname() and z.iso.duration(), valibot's domain() and bic(), arktype's string.integer and string.date.iso.
# github.com/santhosh-tekuri/jsonschema/v6 v6.0.3, github.com/google/jsonschema-go v0.4.3 and github.com/xeipuuv/gojsonschema v1.2.0 refuse the whole schema of an object that
# has one such field, others of it included. ajv 8.20.0 takes all. Most formats (email, uuid, ipv6, date-time) compile everywhere.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save zod@4.6.7 valibot@1.5.0 @valibot/to-json-schema@1.8.0 arktype@2.2.10 ajv@8.20.0 > /dev/null 2>&1
cat > main.mjs <<'EOT'
import { writeFileSync } from 'node:fs';
import { toJsonSchema } from '@valibot/to-json-schema';
import Ajv7 from 'ajv';
import Ajv2020 from 'ajv/dist/2020.js';
import { type } from 'arktype';
import * as v from 'valibot';
import { z } from 'zod';

const valibot = (action) => toJsonSchema(v.object({ name: v.string(), field: v.pipe(v.string(), action) }));
const zod = (field) => z.toJSONSchema(z.object({ name: z.string(), field }));
const arktype = (field) => type({ name: 'string', field }).toJsonSchema();
const schemas = {
  'zod email': zod(z.email()),
  'zod ipv6': zod(z.ipv6()),
  'zod iso.datetime': zod(z.iso.datetime()),
  'zod hostname': zod(z.hostname()),
  'zod iso.duration': zod(z.iso.duration()),
  'valibot email': valibot(v.email()),
  'valibot domain': valibot(v.domain()),
  'valibot bic': valibot(v.bic()),
  'arktype email': arktype('string.email'),
  'arktype integer': arktype('string.integer'),
  'arktype date.iso': arktype('string.date.iso'),
};
for (const [name, schema] of Object.entries(schemas)) {
  const Ajv = schema.$schema.includes('2020-12') ? Ajv2020 : Ajv7;
  let taken = true;
  try { new Ajv({ logger: false, validateFormats: false }).compile(schema); } catch { taken = false; }
  console.log(`${name}: ajv ${taken}`);
}
writeFileSync('schemas.json', JSON.stringify(Object.entries(schemas)));
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/google/jsonschema-go v0.4.3
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3
	github.com/xeipuuv/gojsonschema v1.2.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/google/jsonschema-go/jsonschema"
	tekuri "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/xeipuuv/gojsonschema"
)

func compileTekuri(schema []byte) error {
	doc, err := tekuri.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return err
	}
	compiler := tekuri.NewCompiler()
	if err := compiler.AddResource("schema.json", doc); err != nil {
		return err
	}
	_, err = compiler.Compile("schema.json")
	return err
}

func compileGoogle(schema []byte) error {
	var s jsonschema.Schema
	if err := json.Unmarshal(schema, &s); err != nil {
		return err
	}
	_, err := s.Resolve(nil)
	return err
}

func compileXeipuuv(schema []byte) error {
	_, err := gojsonschema.NewSchema(gojsonschema.NewBytesLoader(schema))
	return err
}

func main() {
	data, err := os.ReadFile("schemas.json")
	if err != nil {
		panic(err)
	}
	var all [][2]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		panic(err)
	}
	for _, pair := range all {
		fmt.Printf("%s: santhosh-tekuri %t, google %t, xeipuuv %t\n", pair[0],
			compileTekuri(pair[1]) == nil, compileGoogle(pair[1]) == nil, compileXeipuuv(pair[1]) == nil)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/google/jsonschema-go github.com/santhosh-tekuri/jsonschema/v6 github.com/xeipuuv/gojsonschema
for package in zod valibot @valibot/to-json-schema arktype ajv; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
{
  node main.mjs
  GOTOOLCHAIN=local timeout 120 go run .
} | tee seen
cat > want <<'EOT'
zod email: ajv true
zod ipv6: ajv true
zod iso.datetime: ajv true
zod hostname: ajv true
zod iso.duration: ajv true
valibot email: ajv true
valibot domain: ajv true
valibot bic: ajv true
arktype email: ajv true
arktype integer: ajv true
arktype date.iso: ajv true
"zod email": santhosh-tekuri true, google true, xeipuuv true
"zod ipv6": santhosh-tekuri true, google true, xeipuuv true
"zod iso.datetime": santhosh-tekuri true, google true, xeipuuv true
"zod hostname": santhosh-tekuri false, google false, xeipuuv false
"zod iso.duration": santhosh-tekuri false, google false, xeipuuv false
"valibot email": santhosh-tekuri true, google true, xeipuuv true
"valibot domain": santhosh-tekuri false, google false, xeipuuv false
"valibot bic": santhosh-tekuri false, google false, xeipuuv false
"arktype email": santhosh-tekuri true, google true, xeipuuv true
"arktype integer": santhosh-tekuri false, google false, xeipuuv false
"arktype date.iso": santhosh-tekuri false, google false, xeipuuv false
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
