#!/usr/bin/env bash
# Guess: an array or an object that a client in TypeScript puts into a URL by a service's OpenAPI document is what the server in Go, made by the same document, reads: OpenAPI
# goes by RFC 6570 there, in which a delimiter within a value is written with %, so that it is told from one between values.
# Seen: openapi-fetch 0.17.0 (npm) writes it so: ["a,b","c"] is "a%2Cb,c". github.com/oapi-codegen/runtime v1.9.0 (BindQueryParameter, and BindStyledParameterWithOptions for paths) and
# github.com/getkin/kin-openapi v0.153.0 (openapi3filter) decode first and split then: three elements, "a", "b" and "c", without an error, in a query without explode and in
# a path with and without; an object with such a value is refused. BindRawQueryParameter, of the same runtime, splits first, and says in its documentation that
# BindQueryParameter cannot; for paths there is no such thing. With explode arrays in a query are read as written by all.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save openapi-fetch@0.17.0 > /dev/null 2>&1
cat > main.mjs <<'EOT'
import { createQuerySerializer, defaultPathSerializer } from 'openapi-fetch';

const query = (style, explode, p) => console.log(`query|${style}|${explode}|${JSON.stringify(p)}|${createQuerySerializer({ array: { style, explode }, object: { style, explode } })({ p })}`);
query('form', true, ['a,b', 'c']);
query('form', false, ['a,b', 'c']);
query('form', false, { x: 'a,b', y: 'c' });
const path = (style, template, p) => console.log(`path|${style}|${template.includes('*')}|${JSON.stringify(p)}|${defaultPathSerializer(template, { p })}`);
path('simple', '{p}', ['a', 'c']);
path('simple', '{p}', ['a,b', 'c']);
path('simple', '{p*}', ['a,b', 'c']);
path('matrix', '{;p}', ['a,b', 'c']);
path('simple', '{p}', { x: 'a,b', y: 'c' });
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/getkin/kin-openapi v0.153.0
	github.com/oapi-codegen/runtime v1.9.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/oapi-codegen/runtime"
)

type pair struct {
	X, Y string
}

// read has a function read an array or an object, and says what it read.
func read(object bool, bind func(any) error) string {
	if object {
		var v *pair
		if err := bind(&v); err != nil {
			return "refused"
		}
		return fmt.Sprintf("%+v", *v)
	}
	var v *[]string
	if err := bind(&v); err != nil {
		return "refused"
	}
	return fmt.Sprintf("%q", *v)
}

// readPath is read for a parameter that is in each path.
func readPath(object bool, bind func(any) error) string {
	if object {
		var v pair
		if err := bind(&v); err != nil {
			return "refused"
		}
		return fmt.Sprintf("%+v", v)
	}
	var v []string
	if err := bind(&v); err != nil {
		return "refused"
	}
	return fmt.Sprintf("%q", v)
}

// validate has kin-openapi look at a parameter of two values.
func validate(in, style string, explode, object bool, raw string) string {
	schema := openapi3.NewArraySchema().WithItems(openapi3.NewStringSchema()).WithMaxItems(2)
	if object {
		schema = openapi3.NewObjectSchema().WithProperty("x", openapi3.NewStringSchema()).WithProperty("y", openapi3.NewStringSchema())
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	input := &openapi3filter.RequestValidationInput{Request: r}
	if in == "query" {
		r.URL.RawQuery = raw
		input.QueryParams = r.URL.Query()
	} else {
		segment, err := url.PathUnescape(raw)
		if err != nil {
			panic(err)
		}
		input.PathParams = map[string]string{"p": segment}
	}
	parameter := &openapi3.Parameter{Name: "p", In: in, Style: style, Explode: &explode, Required: true, Schema: schema.NewRef()}
	if err := openapi3filter.ValidateParameter(r.Context(), input, parameter); err != nil {
		return "refused"
	}
	return "taken"
}

func main() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		f := strings.SplitN(in.Text(), "|", 5)
		style, explode, raw := f[1], f[2] == "true", f[4]
		var sent any
		if err := json.Unmarshal([]byte(f[3]), &sent); err != nil {
			panic(err)
		}
		_, object := sent.(map[string]any)
		fmt.Printf("%s %s, explode %v, %s is %s: ", f[0], style, explode, f[3], raw)
		if f[0] == "query" {
			values, err := url.ParseQuery(raw)
			if err != nil {
				panic(err)
			}
			fmt.Printf("BindQueryParameter %s, BindRawQueryParameter %s, ", read(object, func(v any) error {
				return runtime.BindQueryParameter(style, explode, false, "p", values, v)
			}), read(object, func(v any) error { return runtime.BindRawQueryParameter(style, explode, false, "p", raw, v) }))
		} else {
			fmt.Printf("BindStyledParameter %s, ", readPath(object, func(v any) error {
				return runtime.BindStyledParameterWithOptions(style, "p", raw, v, runtime.BindStyledParameterOptions{ParamLocation: runtime.ParamLocationPath, Explode: explode, Required: true})
			}))
		}
		fmt.Println("kin-openapi, two at most:", validate(f[0], style, explode, object, raw))
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/oapi-codegen/runtime github.com/getkin/kin-openapi
node -p '"openapi-fetch " + JSON.parse(require("fs").readFileSync("node_modules/openapi-fetch/package.json")).version'
node main.mjs > urls
GOTOOLCHAIN=local timeout 120 go run . < urls | tee seen
cat > want <<'EOT'
query form, explode true, ["a,b","c"] is p=a%2Cb&p=c: BindQueryParameter ["a,b" "c"], BindRawQueryParameter ["a,b" "c"], kin-openapi, two at most: taken
query form, explode false, ["a,b","c"] is p=a%2Cb,c: BindQueryParameter ["a" "b" "c"], BindRawQueryParameter ["a,b" "c"], kin-openapi, two at most: refused
query form, explode false, {"x":"a,b","y":"c"} is p=x,a%2Cb,y,c: BindQueryParameter refused, BindRawQueryParameter {X:a,b Y:c}, kin-openapi, two at most: refused
path simple, explode false, ["a","c"] is a,c: BindStyledParameter ["a" "c"], kin-openapi, two at most: taken
path simple, explode false, ["a,b","c"] is a%2Cb,c: BindStyledParameter ["a" "b" "c"], kin-openapi, two at most: refused
path simple, explode true, ["a,b","c"] is a%2Cb,c: BindStyledParameter ["a" "b" "c"], kin-openapi, two at most: refused
path matrix, explode false, ["a,b","c"] is ;p=a%2Cb,c: BindStyledParameter ["a" "b" "c"], kin-openapi, two at most: refused
path simple, explode false, {"x":"a,b","y":"c"} is x,a%2Cb,y,c: BindStyledParameter refused, kin-openapi, two at most: refused
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
