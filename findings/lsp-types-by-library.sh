#!/usr/bin/env bash
# Guess: a tool in Go that stands between an editor and a language server reads valid messages of LSP 3.16 into the types that Go's libraries have for them, and writes them again
# without loss: what may be one of several types in the protocol is one of them in Go.
# Seen: go.lsp.dev/protocol v0.12.0 refuses a hover whose contents are a text or a list of them, and a parameter's label that is a pair of offsets. github.com/tliron/glsp v0.2.2 (protocol_3_16)
# takes these messages, and leaves empty what may be of two types: the contents of a hover, the code of a diagnostic, the token of a progress. Both lose, without a word, which file a
# workspace edit renames, and the two ranges of a completion that may insert or replace. vscode-languageserver-types 3.17.5 (npm) says of those that it has a check for that they are valid.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save vscode-languageserver-types@3.17.5 > /dev/null 2>&1
cat > messages.json <<'EOT'
[
  ["Hover", {"contents": {"kind": "markdown", "value": "x"}}],
  ["Hover", {"contents": "x"}],
  ["Hover", {"contents": ["x", {"language": "go", "value": "y"}]}],
  ["Diagnostic", {"range": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 1}}, "message": "m", "code": 5}],
  ["ParameterInformation", {"label": [2, 3]}],
  ["ProgressParams", {"token": "t", "value": {"kind": "end"}}],
  ["WorkspaceEdit", {"documentChanges": [{"kind": "rename", "oldUri": "file:///a", "newUri": "file:///b"}]}],
  ["CompletionItem", {"label": "a", "textEdit": {"newText": "x", "insert": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 1}}, "replace": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 2}}}}]
]
EOT
cat > main.cjs <<'EOT'
const types = require('vscode-languageserver-types');

for (const [type, message] of JSON.parse(require('node:fs').readFileSync('messages.json'))) {
  let valid = types[type]?.is?.(message);
  if (type === 'CompletionItem') valid = types.InsertReplaceEdit.is(message.textEdit);
  console.log(`Node: ${type} ${JSON.stringify(message).slice(0, 60)}: ${valid ?? 'no check'}`);
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/tliron/glsp v0.2.2
	go.lsp.dev/protocol v0.12.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	glsp "github.com/tliron/glsp/protocol_3_16"
	lspdev "go.lsp.dev/protocol"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

var types = map[string][2]func() any{
	"CompletionItem":       {func() any { return new(lspdev.CompletionItem) }, func() any { return new(glsp.CompletionItem) }},
	"Diagnostic":           {func() any { return new(lspdev.Diagnostic) }, func() any { return new(glsp.Diagnostic) }},
	"Hover":                {func() any { return new(lspdev.Hover) }, func() any { return new(glsp.Hover) }},
	"ParameterInformation": {func() any { return new(lspdev.ParameterInformation) }, func() any { return new(glsp.ParameterInformation) }},
	"ProgressParams":       {func() any { return new(lspdev.ProgressParams) }, func() any { return new(glsp.ProgressParams) }},
	"WorkspaceEdit":        {func() any { return new(lspdev.WorkspaceEdit) }, func() any { return new(glsp.WorkspaceEdit) }},
}

// lost says which parts of a message are not in what was written of it, or are null there.
func lost(path string, message, written any) []string {
	switch m := message.(type) {
	case map[string]any:
		w, ok := written.(map[string]any)
		if !ok {
			return []string{path}
		}
		var parts []string
		for key, value := range m {
			parts = append(parts, lost(path+"."+key, value, w[key])...)
		}
		return parts
	case []any:
		w, ok := written.([]any)
		if !ok || len(w) != len(m) {
			return []string{path}
		}
		var parts []string
		for i := range m {
			parts = append(parts, lost(fmt.Sprintf("%s[%d]", path, i), m[i], w[i])...)
		}
		return parts
	}
	if message != written {
		return []string{path}
	}
	return nil
}

func main() {
	data, err := os.ReadFile("messages.json")
	must(err)
	var messages [][2]json.RawMessage
	must(json.Unmarshal(data, &messages))
	for i, library := range []string{"go.lsp.dev/protocol", "glsp"} {
		for n, m := range messages {
			var name string
			must(json.Unmarshal(m[0], &name))
			value := types[name][i]()
			if err := json.Unmarshal(m[1], value); err != nil {
				fmt.Printf("%s, %d, %s: refused, %v\n", library, n, name, err)
				continue
			}
			text, err := json.Marshal(value)
			must(err)
			var message, written any
			must(json.Unmarshal(m[1], &message))
			must(json.Unmarshal(text, &written))
			parts := lost("", message, written)
			slices.Sort(parts)
			fmt.Printf("%s, %d, %s: lost [%s]\n", library, n, name, strings.Join(parts, " "))
		}
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.lsp.dev/protocol github.com/tliron/glsp
node -p '"vscode-languageserver-types " + require("./node_modules/vscode-languageserver-types/package.json").version'
{
  timeout 120 node main.cjs
  GOTOOLCHAIN=local timeout 120 go run .
} | tee seen
cat > want <<'EOT'
Node: Hover {"contents":{"kind":"markdown","value":"x"}}: true
Node: Hover {"contents":"x"}: true
Node: Hover {"contents":["x",{"language":"go","value":"y"}]}: true
Node: Diagnostic {"range":{"start":{"line":0,"character":0},"end":{"line":0,": true
Node: ParameterInformation {"label":[2,3]}: no check
Node: ProgressParams {"token":"t","value":{"kind":"end"}}: no check
Node: WorkspaceEdit {"documentChanges":[{"kind":"rename","oldUri":"file:///a","n: true
Node: CompletionItem {"label":"a","textEdit":{"newText":"x","insert":{"start":{"l: true
go.lsp.dev/protocol, 0, Hover: lost []
go.lsp.dev/protocol, 1, Hover: refused, json: cannot unmarshal string into Go struct field Hover.contents of type protocol.MarkupContent
go.lsp.dev/protocol, 2, Hover: refused, json: cannot unmarshal array into Go struct field Hover.contents of type protocol.MarkupContent
go.lsp.dev/protocol, 3, Diagnostic: lost []
go.lsp.dev/protocol, 4, ParameterInformation: refused, json: cannot unmarshal array into Go struct field ParameterInformation.label of type string
go.lsp.dev/protocol, 5, ProgressParams: lost []
go.lsp.dev/protocol, 6, WorkspaceEdit: lost [.documentChanges[0].kind .documentChanges[0].newUri .documentChanges[0].oldUri]
go.lsp.dev/protocol, 7, CompletionItem: lost [.textEdit.insert .textEdit.replace]
glsp, 0, Hover: lost []
glsp, 1, Hover: lost [.contents]
glsp, 2, Hover: lost [.contents[0] .contents[1]]
glsp, 3, Diagnostic: lost [.code]
glsp, 4, ParameterInformation: lost []
glsp, 5, ProgressParams: lost [.token]
glsp, 6, WorkspaceEdit: lost [.documentChanges[0].kind .documentChanges[0].newUri .documentChanges[0].oldUri]
glsp, 7, CompletionItem: lost [.textEdit.insert .textEdit.replace]
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
