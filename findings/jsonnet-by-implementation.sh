#!/usr/bin/env bash
# Guess: a configuration in Jsonnet gives one JSON whichever implementation evaluates it, the one in Go that tools link or the one in C++ that distributions
# have: both are of the language's authors, and its library is written down.
# Seen: github.com/google/go-jsonnet v0.22.0 and jsonnet 0.18.0 (Debian 12) give other values without an error: std.base64 of a text encodes its UTF-8 in Go,
# and in C++ its code points, "w6k=" and "6Q==" for "é", so that a secret has other bytes; "w6k=" decoded is "é" in Go, and "Ã©" in C++. std.parseYaml
# reads on, off, yes, y and No as booleans in Go (YAML 1.1), and as texts in C++; anchors and tags, which Go reads, are an error there. std.reverse takes a
# text in C++ alone, and a negative bound of a slice is counted from the end in Go alone; the other has an error.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
apt-get download jsonnet=0.18.0+ds-3+b2 libjsonnet0=0.18.0+ds-3+b2 > /dev/null 2>&1
for package in *.deb; do dpkg-deb -x "$package" root; done
export LD_LIBRARY_PATH="$(echo root/usr/lib/*-linux-gnu)"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/google/go-jsonnet v0.22.0
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"

	"github.com/google/go-jsonnet"
)

// short is a value in one line, or that there is none.
func short(text []byte, err error) string {
	var out bytes.Buffer
	if err != nil || json.Compact(&out, text) != nil {
		return "an error"
	}
	return out.String()
}

func main() {
	for _, snippet := range []string{
		`std.base64("e")`,
		`std.base64("é")`,
		`std.base64Decode("w6k=")`,
		`std.parseYaml("[on, off, yes, y, No, true]")`,
		`std.parseYaml("a: &x {b: 1}\nc: *x")`,
		`std.parseYaml("a: !!str 1")`,
		`std.reverse("abc")`,
		`[1, 2, 3][-2:]`,
	} {
		vm := jsonnet.MakeVM()
		inGo, err := vm.EvaluateAnonymousSnippet("snippet", snippet)
		fmt.Printf("%s: Go %s", snippet, short([]byte(inGo), err))
		fmt.Printf(", C++ %s\n", short(exec.Command("root/usr/bin/jsonnet", "-e", snippet).Output()))
	}
}
EOT
cat > want <<'EOT'
std.base64("e"): Go "ZQ==", C++ "ZQ=="
std.base64("é"): Go "w6k=", C++ "6Q=="
std.base64Decode("w6k="): Go "é", C++ "Ã©"
std.parseYaml("[on, off, yes, y, No, true]"): Go [true,false,true,true,false,true], C++ ["on","off","yes","y","No",true]
std.parseYaml("a: &x {b: 1}\nc: *x"): Go {"a":{"b":1},"c":{"b":1}}, C++ an error
std.parseYaml("a: !!str 1"): Go {"a":"1"}, C++ an error
std.reverse("abc"): Go an error, C++ ["c","b","a"]
[1, 2, 3][-2:]: Go [2,3], C++ an error
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/google/go-jsonnet
root/usr/bin/jsonnet --version
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
