#!/usr/bin/env bash
# Guess: what a service in Go writes in Thrift's protocols one in Node reads as it was, and the other way round: both libraries are of one release of Apache Thrift, and the protocols are written down.
# Seen: in the compact protocol Node's (thrift 0.24.0, npm) reads each true that stands in a list as false, without a word: those of github.com/apache/thrift v0.24.0, and its own. As
# a field's value it is read, and in the binary and the JSON protocol too. In the JSON protocol Node's writes a text's control characters as they are, but for the five with short escapes: a text
# with the colours of a terminal (ESC) is no JSON then, and Go makes an empty text of it, without an error.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save thrift@0.24.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/apache/thrift v0.24.0
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/apache/thrift/lib/go/thrift"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

var (
	ctx       = context.Background()
	protocols = []string{"binary", "compact", "json"}
)

func protocol(name string, on thrift.TTransport) thrift.TProtocol {
	switch name {
	case "binary":
		return thrift.NewTBinaryProtocolConf(on, nil)
	case "compact":
		return thrift.NewTCompactProtocolConf(on, nil)
	}
	return thrift.NewTJSONProtocol(on)
}

// write makes a message with a bool, a list of bools and a text.
func write(name string) string {
	buffer := thrift.NewTMemoryBuffer()
	p := protocol(name, buffer)
	must(p.WriteMessageBegin(ctx, "m", thrift.CALL, 7))
	must(p.WriteStructBegin(ctx, "s"))
	must(p.WriteFieldBegin(ctx, "flag", thrift.BOOL, 1))
	must(p.WriteBool(ctx, true))
	must(p.WriteFieldEnd(ctx))
	must(p.WriteFieldBegin(ctx, "flags", thrift.LIST, 2))
	must(p.WriteListBegin(ctx, thrift.BOOL, 3))
	for _, flag := range []bool{true, false, true} {
		must(p.WriteBool(ctx, flag))
	}
	must(p.WriteListEnd(ctx))
	must(p.WriteFieldEnd(ctx))
	must(p.WriteFieldBegin(ctx, "text", thrift.STRING, 3))
	must(p.WriteString(ctx, "\x1b[31mred"))
	must(p.WriteFieldEnd(ctx))
	must(p.WriteFieldStop(ctx))
	must(p.WriteStructEnd(ctx))
	must(p.WriteMessageEnd(ctx))
	must(p.Flush(ctx))
	return hex.EncodeToString(buffer.Bytes())
}

func read(name, data string) string {
	raw, err := hex.DecodeString(data)
	must(err)
	buffer := thrift.NewTMemoryBuffer()
	buffer.Write(raw)
	p := protocol(name, buffer)
	_, _, _, err = p.ReadMessageBegin(ctx)
	must(err)
	_, err = p.ReadStructBegin(ctx)
	must(err)
	_, _, _, err = p.ReadFieldBegin(ctx)
	must(err)
	flag, err := p.ReadBool(ctx)
	must(err)
	must(p.ReadFieldEnd(ctx))
	_, _, _, err = p.ReadFieldBegin(ctx)
	must(err)
	_, n, err := p.ReadListBegin(ctx)
	must(err)
	flags := make([]bool, n)
	for i := range flags {
		flags[i], err = p.ReadBool(ctx)
		must(err)
	}
	must(p.ReadListEnd(ctx))
	must(p.ReadFieldEnd(ctx))
	_, _, _, err = p.ReadFieldBegin(ctx)
	must(err)
	text, err := p.ReadString(ctx)
	if err != nil {
		return fmt.Sprintf("%t %v, text refused", flag, flags)
	}
	return fmt.Sprintf("%t %v %q", flag, flags, text)
}

func main() {
	if os.Args[1] == "write" {
		texts := map[string]string{}
		for _, name := range protocols {
			texts[name] = write(name)
		}
		out, err := json.Marshal(texts)
		must(err)
		must(os.WriteFile("go.json", out, 0o600))
		return
	}
	for _, writer := range []string{"go", "node"} {
		data, err := os.ReadFile(writer + ".json")
		must(err)
		texts := map[string]string{}
		must(json.Unmarshal(data, &texts))
		for _, name := range protocols {
			fmt.Printf("Go reads what %s writes, %s: %s\n", writer, name, read(name, texts[name]))
		}
	}
}
EOT
cat > main.cjs <<'EOT'
const { readFileSync, writeFileSync } = require('node:fs');
const thrift = require('thrift');

const { Type } = thrift.Thrift;
const protocols = { binary: thrift.TBinaryProtocol, compact: thrift.TCompactProtocol, json: thrift.TJSONProtocol };
function write(Protocol) {
  let written;
  const p = new Protocol(new thrift.TBufferedTransport(null, (data) => { written = data; }));
  p.writeMessageBegin('m', 1, 7);
  p.writeStructBegin('s');
  p.writeFieldBegin('flag', Type.BOOL, 1);
  p.writeBool(true);
  p.writeFieldEnd();
  p.writeFieldBegin('flags', Type.LIST, 2);
  p.writeListBegin(Type.BOOL, 3);
  for (const flag of [true, false, true]) p.writeBool(flag);
  p.writeListEnd();
  p.writeFieldEnd();
  p.writeFieldBegin('text', Type.STRING, 3);
  p.writeString('\u001b[31mred');
  p.writeFieldEnd();
  p.writeFieldStop();
  p.writeStructEnd();
  p.writeMessageEnd();
  p.flush();
  return written.toString('hex');
}
function read(Protocol, data) {
  let transport;
  thrift.TBufferedTransport.receiver((t) => { transport = t; })(Buffer.from(data, 'hex'));
  const p = new Protocol(transport);
  p.readMessageBegin();
  p.readStructBegin();
  p.readFieldBegin();
  const flag = p.readBool();
  p.readFieldEnd();
  p.readFieldBegin();
  const flags = Array.from({ length: p.readListBegin().size }, () => p.readBool());
  p.readListEnd();
  p.readFieldEnd();
  p.readFieldBegin();
  return `${flag} [${flags.join(' ')}] ${JSON.stringify(p.readString())}`;
}
const own = {};
for (const [name, Protocol] of Object.entries(protocols)) own[name] = write(Protocol);
writeFileSync('node.json', JSON.stringify(own));
for (const [writer, texts] of Object.entries({ go: JSON.parse(readFileSync('go.json')), node: own })) {
  for (const [name, Protocol] of Object.entries(protocols)) {
    let seen;
    try {
      seen = read(Protocol, texts[name]);
    } catch (e) {
      seen = `refused, ${e.name}`;
    }
    console.log(`Node reads what ${writer} writes, ${name}: ${seen}`);
  }
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/apache/thrift
node -p '"thrift " + require("./node_modules/thrift/package.json").version'
GOTOOLCHAIN=local go build -o service .
timeout 60 ./service write
{
  timeout 120 node main.cjs
  timeout 60 ./service read
} | tee seen
cat > want <<'EOT'
Node reads what go writes, binary: true [true false true] "\u001b[31mred"
Node reads what go writes, compact: true [false false false] "\u001b[31mred"
Node reads what go writes, json: true [true false true] "\u001b[31mred"
Node reads what node writes, binary: true [true false true] "\u001b[31mred"
Node reads what node writes, compact: true [false false false] "\u001b[31mred"
Node reads what node writes, json: true [true false true] "\u001b[31mred"
Go reads what go writes, binary: true [true false true] "\x1b[31mred"
Go reads what go writes, compact: true [true false true] "\x1b[31mred"
Go reads what go writes, json: true [true false true] "\x1b[31mred"
Go reads what node writes, binary: true [true false true] "\x1b[31mred"
Go reads what node writes, compact: true [true false true] "\x1b[31mred"
Go reads what node writes, json: true [true false true] ""
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
