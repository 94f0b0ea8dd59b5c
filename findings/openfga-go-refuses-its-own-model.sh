#!/usr/bin/env bash
# Guess: the model that OpenFGA's library for Go makes of a text in its language can be written as that text again: one function makes the message (TransformDSLToProto), the
# other takes the message (TransformJSONProtoToDSL), and @openfga/syntax-transformer does so in Node.
# Seen: github.com/openfga/language/pkg/go v0.3.2 refuses it for each relation that names a type, the plainest included: "the 'viewer' relation definition under the 'doc' type
# is not supported by the OpenFGA DSL syntax yet". The message is made with the field "this" set to nothing (a nil pointer in the oneof), which the other function takes for
# absent; proto.Equal says that it is equal to the one that is read from its own bytes, which is written, as is the one through protojson. @openfga/syntax-transformer 0.2.2
# (npm) writes it at once.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @openfga/syntax-transformer@0.2.2 > /dev/null 2>&1
cat > model.fga <<'EOT'
model
  schema 1.1

type user

type doc
  relations
    define viewer: [user]
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/openfga/api/proto v0.0.0-20260319214821-f153694bfc20
	github.com/openfga/language/pkg/go v0.3.2
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"os"

	openfgav1 "github.com/openfga/api/proto/openfga/v1"
	"github.com/openfga/language/pkg/go/transformer"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func write(name string, model *openfgav1.AuthorizationModel, text string) {
	back, err := transformer.TransformJSONProtoToDSL(model)
	fmt.Printf("%s: the text again %t, error %v\n", name, back == text, err)
}

func main() {
	data, err := os.ReadFile("model.fga")
	must(err)
	model, err := transformer.TransformDSLToProto(string(data))
	must(err)
	write("as made", model, string(data))

	asJSON, err := protojson.Marshal(model)
	must(err)
	var read openfgav1.AuthorizationModel
	must(protojson.Unmarshal(asJSON, &read))
	write("through protojson", &read, string(data))

	asBytes, err := proto.Marshal(model)
	must(err)
	var decoded openfgav1.AuthorizationModel
	must(proto.Unmarshal(asBytes, &decoded))
	write("through proto.Marshal", &decoded, string(data))
	fmt.Println("as made and through proto.Marshal equal:", proto.Equal(model, &decoded))
}
EOT
cat > main.cjs <<'EOT'
const { transformer } = require('@openfga/syntax-transformer');

const text = require('node:fs').readFileSync('model.fga', 'utf8');
console.log('Node: the text again', transformer.transformJSONToDSL(transformer.transformDSLToJSONObject(text)) === text);
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/openfga/language/pkg/go
node -p '"@openfga/syntax-transformer " + JSON.parse(require("fs").readFileSync("node_modules/@openfga/syntax-transformer/package.json")).version'
{
  GOTOOLCHAIN=local timeout 120 go run .
  node main.cjs
} | tee seen
cat > want <<'EOT'
as made: the text again false, error the 'viewer' relation definition under the 'doc' type is not supported by the OpenFGA DSL syntax yet
through protojson: the text again true, error <nil>
through proto.Marshal: the text again true, error <nil>
as made and through proto.Marshal equal: true
Node: the text again true
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
