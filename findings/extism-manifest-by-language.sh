#!/usr/bin/env bash
# Guess: a plugin and its manifest, which is JSON and one format for all of Extism's libraries, are in a host in Node what they are in one in Go: its settings
# hold, and what the plugin says by its status and its text is told alike.
# Seen: @extism/extism 1.0.3 (npm) goes by wasm alone, with its hash: config and allowed_paths of the manifest count in github.com/extism/go-sdk v1.7.1 and
# not there, without a word; they are to be given to createPlugin. A plugin in Go (GOOS=wasip1, go-pdk v1.1.3) that says an error and returns 0 has its output
# in Go beside the error, and fails in Node. os.Exit(0) is a success without output in Go, and the plugin is gone; in Node the call fails with an error that
# has no text, and the plugin goes on. No output is an empty one in Go and null in Node. Its clock says 2022 in Go and today in Node. A status other than 0
# with an output is no error in either.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @extism/extism@1.0.3 > /dev/null 2>&1
mkdir plugin data
echo text > data/file
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/extism/go-pdk v1.1.3
	github.com/extism/go-sdk v1.7.1
)
EOT
cat > plugin/main.go <<'EOT'
package main

import (
	"os"
	"strconv"
	"time"

	"github.com/extism/go-pdk"
)

//go:wasmexport config
func config() int32 {
	value, _ := pdk.GetConfig("key")
	pdk.OutputString(value)
	return 0
}

//go:wasmexport file
func file() int32 {
	text, err := os.ReadFile("/data/file")
	if err != nil {
		text = []byte("no file\n")
	}
	pdk.Output(text[:len(text)-1])
	return 0
}

//go:wasmexport both
func both() int32 {
	pdk.SetErrorString("too much")
	pdk.OutputString("output")
	return 0
}

//go:wasmexport seven
func seven() int32 {
	pdk.OutputString("output")
	return 7
}

//go:wasmexport exit
func exit() int32 {
	os.Exit(0)
	return 0
}

//go:wasmexport silent
func silent() int32 { return 0 }

//go:wasmexport clock
func clock() int32 {
	pdk.OutputString("before 2024: " + strconv.FormatBool(time.Now().Year() < 2024))
	return 0
}

func main() {}
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	extism "github.com/extism/go-sdk"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	ctx := context.Background()
	var manifest extism.Manifest
	if err := json.Unmarshal(must(os.ReadFile("manifest.json")), &manifest); err != nil {
		panic(err)
	}
	compiled := must(extism.NewCompiledPlugin(ctx, manifest, extism.PluginConfig{EnableWasi: true}, nil))
	for _, name := range []string{"config", "file", "both", "seven", "exit", "silent", "clock"} {
		plugin := must(compiled.Instance(ctx, extism.PluginInstanceConfig{}))
		status, output, err := plugin.Call(name, nil)
		_, _, after := plugin.Call("silent", nil)
		said := "none"
		if err != nil {
			said = strings.TrimSuffix(strings.SplitN(err.Error(), "\n", 2)[0], " (recovered by wazero)")
		}
		fmt.Printf("Go, %s: status %d, output %q, error %s; goes on %t\n", name, status, output, said, after == nil)
		plugin.Close(ctx)
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import createPlugin from '@extism/extism';

const manifest = JSON.parse(readFileSync('manifest.json', 'utf8'));
for (const [how, options] of [['Node', {}], ['Node with options', { config: manifest.config, allowedPaths: { '/data': 'data' } }]]) {
  for (const name of ['config', 'file', 'both', 'seven', 'exit', 'silent', 'clock'].slice(0, how === 'Node' ? 7 : 2)) {
    const plugin = await createPlugin(manifest, { useWasi: true, ...options });
    const said = await plugin.call(name).then((output) => `output ${output && JSON.stringify(output.text())}, error none`, (err) => `error ${err.message}`);
    const after = await plugin.call('silent').then(() => true, () => false);
    console.log(`${how}, ${name}: ${said}; goes on ${after}`);
    await plugin.close();
  }
}
EOT
cat > want <<'EOT'
Go, config: status 0, output "value", error none; goes on true
Go, file: status 0, output "text", error none; goes on true
Go, both: status 0, output "output", error too much; goes on true
Go, seven: status 7, output "output", error none; goes on true
Go, exit: status 0, output "", error none; goes on false
Go, silent: status 0, output "", error none; goes on true
Go, clock: status 0, output "before 2024: true", error none; goes on true
Node, config: output "", error none; goes on true
Node, file: output "no file", error none; goes on true
Node, both: error Plugin-originated error: too much; goes on true
Node, seven: output "output", error none; goes on true
Node, exit: error undefined; goes on true
Node, silent: output null, error none; goes on true
Node, clock: output "before 2024: false", error none; goes on true
Node with options, config: output "value", error none; goes on true
Node with options, file: output "text", error none; goes on true
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/extism/go-sdk github.com/extism/go-pdk
node -p '"@extism/extism " + JSON.parse(require("fs").readFileSync("node_modules/@extism/extism/package.json")).version'
GOOS=wasip1 GOARCH=wasm GOTOOLCHAIN=local go build -buildmode=c-shared -o plugin.wasm ./plugin
GOTOOLCHAIN=local go build -o finding .
cat > manifest.json << END
{"wasm": [{"path": "plugin.wasm", "hash": "$(sha256sum plugin.wasm | cut -d ' ' -f 1)"}], "config": {"key": "value"}, "allowed_paths": {"$dir/data": "/data"}}
END
timeout 120 ./finding > seen
NODE_NO_WARNINGS=1 timeout 120 node main.mjs >> seen
cat seen
cmp -s seen want || { echo CHANGED; exit 1; }
