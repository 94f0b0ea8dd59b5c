#!/usr/bin/env bash
# Guess: a .proto file that buf (and protoc) take is taken by @grpc/proto-loader, which services of Node read their .proto files with as they start, and means the same: both go
# by the language's specification.
# Seen: @grpc/proto-loader 0.8.1 with protobufjs 7.6.6 (npm) refuses what @bufbuild/buf 1.75.0 builds: (1) an empty statement, ";", at the file's top, in a message or an enum, though
# not behind a message; (2) an option whose value has a message in angle brackets; (3) a group in a oneof, "field must be a Field"; (4) edition 2024. protobufjs 8.8.1 takes
# (1) and (4). And they read something else without a word: of the default "\u0041", which is "A", both make "0041"; 7.6.6 makes "41" of "\x41" and "01" of "\101", and of
# 9007199254740993, of an int64, both make 9007199254740992. Texts in two parts, and lists in options, are read as buf does.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/proto-loader@0.8.1 protobufjs@7.6.6 new@npm:protobufjs@8.8.1 @bufbuild/buf@1.75.0 > /dev/null 2>&1
cat > main.cjs <<'EOT'
const { spawnSync } = require('node:child_process');
const { mkdirSync, writeFileSync } = require('node:fs');
const loader = require('@grpc/proto-loader');

const service = ' service S { rpc Get(M) returns (M); }';
const options = 'import "google/protobuf/descriptor.proto"; message O { repeated int32 a = 1; O o = 2; } extend google.protobuf.MethodOptions { O o = 50001; }';
const files = {
  'empty statement in the file': 'syntax = "proto3"; package t;; message M { int32 f = 1; }' + service,
  'empty statement in a message': 'syntax = "proto3"; package t; message M { int32 f = 1;; }' + service,
  'empty statement in an enum': 'syntax = "proto3"; package t; enum E { A = 0;; } message M { int32 f = 1; }' + service,
  'empty statement behind a message': 'syntax = "proto3"; package t; message M { int32 f = 1; };' + service,
  'option in angle brackets': `syntax = "proto3"; package t; ${options} message M { int32 f = 1; } service S { rpc Get(M) returns (M) { option (o) = { o < a: 5 > }; } }`,
  'option with a list': `syntax = "proto3"; package t; ${options} message M { int32 f = 1; } service S { rpc Get(M) returns (M) { option (o) = { a: [1, 2] }; } }`,
  'group in a oneof': 'syntax = "proto2"; package t; message M { oneof x { group F = 1 { optional int32 a = 1; } } }' + service,
  'edition 2024': 'edition = "2024"; package t; message M { int32 f = 1; }' + service,
  'default with \\u0041': 'syntax = "proto2"; package t; message M { optional string f = 1 [default = "\\u0041"]; }' + service,
  'default with \\x41': 'syntax = "proto2"; package t; message M { optional string f = 1 [default = "\\x41"]; }' + service,
  'default with \\101': 'syntax = "proto2"; package t; message M { optional string f = 1 [default = "\\101"]; }' + service,
  'default in two parts': 'syntax = "proto2"; package t; message M { optional string f = 1 [default = "A" \'B\']; }' + service,
  'default 9007199254740993': 'syntax = "proto2"; package t; message M { optional int64 f = 1 [default = 9007199254740993]; }' + service,
};

function attempt(read) {
  try {
    return read();
  } catch {
    return 'refused';
  }
}

function reflect(protobuf, path) {
  const root = new protobuf.Root();
  // The loader brings this one, protobufjs does not.
  root.resolvePath = (from, file) => (file.startsWith('google/') ? require.resolve(`protobufjs/${file}`) : file);
  return root.loadSync(path).resolveAll().lookupType('t.M').fieldsArray[0].defaultValue ?? 'taken';
}

let n = 0;
for (const [name, text] of Object.entries(files)) {
  const dir = `p${n++}`;
  const path = `${dir}/x.proto`;
  mkdirSync(dir);
  writeFileSync(path, text);
  const built = spawnSync('node_modules/.bin/buf', ['build', dir, '-o', '-#format=json'], { encoding: 'utf8' });
  const buf = built.status === 0 ? JSON.parse(built.stdout).file.at(-1).messageType.find((m) => m.name === 'M').field[0].defaultValue ?? 'taken' : 'refused';
  const loaded = attempt(() => loader.loadSync(path) && 'taken');
  const values = ['protobufjs', 'new'].map((p) => attempt(() => String(reflect(require(p), path))));
  console.log(name.startsWith('default') ? `${name}: buf ${buf}, protobufjs 7 ${values[0]}, 8 ${values[1]}` : `${name}: buf ${buf}, proto-loader ${loaded}, protobufjs 8 ${values[1] === 'refused' ? 'refused' : 'taken'}`);
}
EOT
for package in @grpc/proto-loader protobufjs new @bufbuild/buf; do node -p "'$package ' + require('./node_modules/$package/package.json').version"; done
timeout 300 node main.cjs | tee seen
cat > want <<'EOT'
empty statement in the file: buf taken, proto-loader refused, protobufjs 8 taken
empty statement in a message: buf taken, proto-loader refused, protobufjs 8 taken
empty statement in an enum: buf taken, proto-loader refused, protobufjs 8 taken
empty statement behind a message: buf taken, proto-loader taken, protobufjs 8 taken
option in angle brackets: buf taken, proto-loader refused, protobufjs 8 refused
option with a list: buf taken, proto-loader taken, protobufjs 8 taken
group in a oneof: buf taken, proto-loader refused, protobufjs 8 refused
edition 2024: buf taken, proto-loader refused, protobufjs 8 taken
default with \u0041: buf A, protobufjs 7 0041, 8 0041
default with \x41: buf A, protobufjs 7 41, 8 A
default with \101: buf A, protobufjs 7 01, 8 A
default in two parts: buf AB, protobufjs 7 AB, 8 AB
default 9007199254740993: buf 9007199254740993, protobufjs 7 9007199254740992, 8 9007199254740992
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
