#!/usr/bin/env bash
# Guess: a template of RFC 6570 and its values are one URI, whichever library expands it: RFC 6570 gives the algorithm (3.2.1), and each library names it.
# Seen: none of four gives what RFC 6570 says throughout. github.com/yosida95/uritemplate/v3 v3.0.2 writes letters beyond ASCII as the bytes of their code points, not as UTF-8 ("é" is %E9), refuses
# {a:3} of a value with such letters, and encodes the "%" of an octet that is encoded already in {+a} and {#a}, as uri-template-lite 23.4.0 (npm) does. url-template 3.1.1 writes "?a=" for a
# list without elements, which is undefined, and encodes the "&" of a name in {+a*}. uri-templates 0.2.0 and uri-template-lite leave "*" in {a} as it is, and encode "[" in {+a}. All but
# url-template leave the "ä" of a template as it is. The three of npm have "=" behind an empty value in {;a*}, and none in {;a}.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save url-template@3.1.1 uri-templates@0.2.0 uri-template-lite@23.4.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/yosida95/uritemplate/v3 v3.0.2
EOT
# template, value of a, what RFC 6570 says.
cat > cases.json <<'EOT'
[["{a}", "x y", "x%20y"], ["{/a*}", ["x", "y/z"], "/x/y%2Fz"], ["{?a*}", {"k": "v"}, "?k=v"],
 ["{+a}", "é", "%C3%A9"], ["{#a}", "é", "#%C3%A9"], ["{a}", "é", "%C3%A9"], ["{a:3}", "äöüß", "%C3%A4%C3%B6%C3%BC"], ["{a:3}", "abcd", "abc"],
 ["{+a}", "x%20y", "x%20y"], ["{#a}", "x%20y", "#x%20y"],
 ["/ä/{a}", "1", "/%C3%A4/1"],
 ["{?a}", [], ""], ["{+a*}", {"k&": "v"}, "k&=v"],
 ["{a}", "!*", "%21%2A"], ["{+a}", "[]", "[]"],
 ["{;a}", "", ";a"], ["{;a*}", {"k": "", "l": "1"}, ";k;l=1"], ["{;a*}", ["", "x"], ";a;a=x"]]
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/yosida95/uritemplate/v3"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func value(v any) uritemplate.Value {
	var list []string
	switch v := v.(type) {
	case string:
		return uritemplate.String(v)
	case []any:
		for _, x := range v {
			list = append(list, x.(string))
		}
		return uritemplate.List(list...)
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			list = append(list, k, v[k].(string))
		}
		return uritemplate.KV(list...)
	}
	panic(v)
}

func main() {
	var cases [][3]any
	if err := json.Unmarshal(must(os.ReadFile("cases.json")), &cases); err != nil {
		panic(err)
	}
	for _, c := range cases {
		uri, err := must(uritemplate.New(c[0].(string))).Expand(uritemplate.Values{"a": value(c[1])})
		if err != nil {
			uri = "refused"
		}
		v := must(json.Marshal(c[1]))
		fmt.Printf("%s of %s, RFC 6570: %s, Go: %s,\n", c[0], v, c[2], uri)
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { parseTemplate } from 'url-template';
import uriTemplates from 'uri-templates';
import Lite from 'uri-template-lite';

for (const [template, a] of JSON.parse(readFileSync('cases.json', 'utf8'))) {
  console.log(`url-template: ${parseTemplate(template).expand({ a })}, uri-templates: ${uriTemplates(template).fill({ a })}, uri-template-lite: ${new Lite(template).expand({ a })}`);
}
EOT
cat > want <<'EOT'
{a} of "x y", RFC 6570: x%20y, Go: x%20y, url-template: x%20y, uri-templates: x%20y, uri-template-lite: x%20y
{/a*} of ["x","y/z"], RFC 6570: /x/y%2Fz, Go: /x/y%2Fz, url-template: /x/y%2Fz, uri-templates: /x/y%2Fz, uri-template-lite: /x/y%2Fz
{?a*} of {"k":"v"}, RFC 6570: ?k=v, Go: ?k=v, url-template: ?k=v, uri-templates: ?k=v, uri-template-lite: ?k=v
{+a} of "é", RFC 6570: %C3%A9, Go: %E9, url-template: %C3%A9, uri-templates: %C3%A9, uri-template-lite: %C3%A9
{#a} of "é", RFC 6570: #%C3%A9, Go: #%E9, url-template: #%C3%A9, uri-templates: #%C3%A9, uri-template-lite: #%C3%A9
{a} of "é", RFC 6570: %C3%A9, Go: %E9, url-template: %C3%A9, uri-templates: %C3%A9, uri-template-lite: %C3%A9
{a:3} of "äöüß", RFC 6570: %C3%A4%C3%B6%C3%BC, Go: refused, url-template: %C3%A4%C3%B6%C3%BC, uri-templates: %C3%A4%C3%B6%C3%BC, uri-template-lite: %C3%A4%C3%B6%C3%BC
{a:3} of "abcd", RFC 6570: abc, Go: abc, url-template: abc, uri-templates: abc, uri-template-lite: abc
{+a} of "x%20y", RFC 6570: x%20y, Go: x%2520y, url-template: x%20y, uri-templates: x%20y, uri-template-lite: x%2520y
{#a} of "x%20y", RFC 6570: #x%20y, Go: #x%2520y, url-template: #x%20y, uri-templates: #x%20y, uri-template-lite: #x%2520y
/ä/{a} of "1", RFC 6570: /%C3%A4/1, Go: /ä/1, url-template: /%C3%A4/1, uri-templates: /ä/1, uri-template-lite: /ä/1
{?a} of [], RFC 6570: , Go: , url-template: ?a=, uri-templates: , uri-template-lite: 
{+a*} of {"k\u0026":"v"}, RFC 6570: k&=v, Go: k&=v, url-template: k%26=v, uri-templates: k&=v, uri-template-lite: k&=v
{a} of "!*", RFC 6570: %21%2A, Go: %21%2A, url-template: %21%2A, uri-templates: %21*, uri-template-lite: %21*
{+a} of "[]", RFC 6570: [], Go: [], url-template: [], uri-templates: %5B%5D, uri-template-lite: %5B%5D
{;a} of "", RFC 6570: ;a, Go: ;a, url-template: ;a, uri-templates: ;a, uri-template-lite: ;a
{;a*} of {"k":"","l":"1"}, RFC 6570: ;k;l=1, Go: ;k;l=1, url-template: ;k=;l=1, uri-templates: ;k=;l=1, uri-template-lite: ;k=;l=1
{;a*} of ["","x"], RFC 6570: ;a;a=x, Go: ;a;a=x, url-template: ;a=;a=x, uri-templates: ;a=;a=x, uri-template-lite: ;a=;a=x
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/yosida95/uritemplate/v3
for p in url-template uri-templates uri-template-lite; do node -p '"'$p' " + JSON.parse(require("fs").readFileSync("node_modules/'$p'/package.json")).version'; done
GOTOOLCHAIN=local go run . > go.seen
node main.mjs > node.seen
paste -d ' ' go.seen node.seen | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
