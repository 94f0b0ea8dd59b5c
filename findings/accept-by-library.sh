#!/usr/bin/env bash
# Guess: a service that has JSON and protobuf answers with what its caller likes best, whichever library reads Accept: RFC 9110 says what a weight, a weight of 0 and
# a more exact range mean, and that types are the same in small and capital letters.
# Seen: github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822, by which Kubernetes' and Prometheus' libraries choose a format, takes a weight of 0, "not acceptable",
# as a small one: "application/json;q=0" has JSON, and so has "application/json;q=0, */*", as the first offer meets "*/*". A range that is more exact does not count more, and
# "Application/JSON" is nothing that it knows. github.com/gin-gonic/gin v1.12.0 (NegotiateFormat) minds no weights at all: the first type in the header wins.
# github.com/elnormous/contenttype v1.0.4, negotiator 1.1.0 and @hapi/accept 6.0.3 (npm) mind all of it, and differ in parameters: "application/json;charset=utf-8" has
# JSON with goautoneg, gin and hapi, which answers with the caller's parameter, and nothing with contenttype and negotiator.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save negotiator@1.1.0 @hapi/accept@6.0.3 > /dev/null 2>&1
cat > cases <<'EOT'
application/json;q=0.5, application/proto
application/json;q=0, */*
application/json;q=0
application/proto;q=0, application/json
application/*;q=0.9, application/json;q=0.1
Application/JSON
application/json;charset=utf-8
text/plain
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/elnormous/contenttype v1.0.4
	github.com/gin-gonic/gin v1.12.0
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/elnormous/contenttype"
	"github.com/gin-gonic/gin"
	"github.com/munnerz/goautoneg"
)

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func main() {
	gin.SetMode(gin.ReleaseMode)
	offers := []string{"application/json", "application/proto"}
	var types []contenttype.MediaType
	for _, o := range offers {
		types = append(types, contenttype.NewMediaType(o))
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept", in.Text())
		c, _ := gin.CreateTestContext(httptest.NewRecorder())
		c.Request = r
		m, _, err := contenttype.GetAcceptableMediaType(r, types)
		if err != nil {
			m = contenttype.MediaType{}
		}
		fmt.Printf("%s: goautoneg %s, gin %s, contenttype %s\n", in.Text(), orNone(goautoneg.Negotiate(in.Text(), offers)), orNone(c.NegotiateFormat(offers...)), orNone(m.String()))
	}
}
EOT
cat > main.cjs <<'EOT'
const Negotiator = require('negotiator');
const hapi = require('@hapi/accept');
const offers = ['application/json', 'application/proto'];
for (const accept of require('node:fs').readFileSync('cases', 'utf8').trim().split('\n')) {
  const own = new (Negotiator.default ?? Negotiator)({ headers: { accept } }).mediaType(offers);
  console.log(`negotiator ${own ?? 'none'}, hapi ${hapi.mediaType(accept, offers) || 'none'}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/munnerz/goautoneg github.com/gin-gonic/gin github.com/elnormous/contenttype
for package in negotiator @hapi/accept; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local timeout 120 go run . < cases > go.seen
node main.cjs > node.seen
paste -d, go.seen node.seen | sed -E 's/,negotiator/, negotiator/; s#(goautoneg|gin|contenttype|negotiator|hapi) application/#\1 #g' | tee seen
cat > want <<'EOT'
application/json;q=0.5, application/proto: goautoneg proto, gin json, contenttype proto, negotiator proto, hapi proto
application/json;q=0, */*: goautoneg json, gin json, contenttype proto, negotiator proto, hapi proto
application/json;q=0: goautoneg json, gin json, contenttype none, negotiator none, hapi none
application/proto;q=0, application/json: goautoneg json, gin proto, contenttype json, negotiator json, hapi json
application/*;q=0.9, application/json;q=0.1: goautoneg json, gin json, contenttype proto, negotiator proto, hapi proto
Application/JSON: goautoneg none, gin none, contenttype json, negotiator json, hapi json
application/json;charset=utf-8: goautoneg json, gin json, contenttype none, negotiator none, hapi json;charset=utf-8
text/plain: goautoneg none, gin none, contenttype none, negotiator none, hapi none
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
