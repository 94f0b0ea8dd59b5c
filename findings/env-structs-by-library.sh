#!/usr/bin/env bash
# Guess: a plugin's settings that come as variables of the environment into a struct's fields are the same by whichever library of Go its author chose: what is set and empty, a number, a list
# and what is not set at all.
# Seen: of github.com/caarlos0/env/v11 v11.4.2, github.com/kelseyhightower/envconfig v1.4.0 and github.com/sethvargo/go-envconfig v1.4.3, "010" is 10 for the first and 8 for the others, and 0x1F is
# refused by the first and 31 for the others. A number, a bool and a duration that are set and empty are refused by envconfig and as if they were not set for the others. A pointer is nil where
# nothing is set, but not in go-envconfig, where it points to 0 or to "" (its option noinit is for that); one to a text that is set and empty is nil in env. Blanks around the parts of a list are taken
# off by go-envconfig alone, and a map's value may have a colon but in envconfig.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/caarlos0/env/v11 v11.4.2
	github.com/kelseyhightower/envconfig v1.4.0
	github.com/sethvargo/go-envconfig v1.4.3
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"time"

	caarlos0 "github.com/caarlos0/env/v11"
	kelseyhightower "github.com/kelseyhightower/envconfig"
	sethvargo "github.com/sethvargo/go-envconfig"
)

func show(value any, err error) string {
	if err != nil {
		return "refused"
	}
	if v := reflect.ValueOf(value); v.Kind() == reflect.Pointer && !v.IsNil() {
		return fmt.Sprintf("pointer to %#v", v.Elem())
	}
	return fmt.Sprintf("%#v", value)
}

// try reads the variable V, which is set to text or, with nil, not set.
func try[T any](text *string) {
	said := "not set"
	os.Unsetenv("V")
	if text != nil {
		os.Setenv("V", *text)
		said = fmt.Sprintf("%q", *text)
	}
	var config struct {
		V T `env:"V" envconfig:"V"`
	}
	fmt.Printf("%T, %s:", config.V, said)
	for name, read := range []func(any) error{
		func(c any) error { return caarlos0.Parse(c) },
		func(c any) error { return kelseyhightower.Process("", c) },
		func(c any) error { return sethvargo.Process(context.Background(), c) },
	} {
		filled := config
		err := read(&filled)
		fmt.Printf(" %s %s;", []string{"env", "envconfig", "go-envconfig"}[name], show(filled.V, err))
	}
	fmt.Println()
}

func main() {
	try[int](new("5"))
	try[int](new("010"))
	try[int](new("0x1F"))
	try[int](new(""))
	try[bool](new(""))
	try[time.Duration](new(""))
	try[*int](nil)
	try[*string](nil)
	try[*string](new(""))
	try[[]string](new("a,b"))
	try[[]string](new("a, b"))
	try[map[string]string](new("a:1"))
	try[map[string]string](new("a:http://b"))
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/caarlos0/env/v11 github.com/kelseyhightower/envconfig github.com/sethvargo/go-envconfig
GOTOOLCHAIN=local timeout 120 go run . | tee seen
cat > want <<'EOT'
int, "5": env 5; envconfig 5; go-envconfig 5;
int, "010": env 10; envconfig 8; go-envconfig 8;
int, "0x1F": env refused; envconfig 31; go-envconfig 31;
int, "": env 0; envconfig refused; go-envconfig 0;
bool, "": env false; envconfig refused; go-envconfig false;
time.Duration, "": env 0; envconfig refused; go-envconfig 0;
*int, not set: env (*int)(nil); envconfig (*int)(nil); go-envconfig pointer to 0;
*string, not set: env (*string)(nil); envconfig (*string)(nil); go-envconfig pointer to "";
*string, "": env (*string)(nil); envconfig pointer to ""; go-envconfig pointer to "";
[]string, "a,b": env []string{"a", "b"}; envconfig []string{"a", "b"}; go-envconfig []string{"a", "b"};
[]string, "a, b": env []string{"a", " b"}; envconfig []string{"a", " b"}; go-envconfig []string{"a", "b"};
map[string]string, "a:1": env map[string]string{"a":"1"}; envconfig map[string]string{"a":"1"}; go-envconfig map[string]string{"a":"1"};
map[string]string, "a:http://b": env map[string]string{"a":"http://b"}; envconfig refused; go-envconfig map[string]string{"a":"http://b"};
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
