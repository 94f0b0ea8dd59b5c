#!/usr/bin/env bash
# Guess: a time such as the timeout of a plugin, "90s", "1h30m" or "P1DT12H", is as long for a host in Go as for its tools in Node, or is refused by one of
# them: what is written as ISO 8601 has one meaning, and so has a number with its unit.
# Seen: of time (Go 1.26), github.com/prometheus/common v0.74.0 (model), github.com/sosodev/duration v1.4.0 (ISO 8601), and ms 2.1.3, parse-duration 2.1.9 and
# iso8601-duration 2.1.4 (npm) no two agree. (1) parse-duration reads P1DT12H as 12 hours, without its day, and P1M, a month, as a minute; PT36H is right. (2)
# iso8601-duration takes -PT1S for one second. (3) "1y" is 365 days for Prometheus, and 365.25 for ms and parse-duration. (4) "1h30m" is refused by ms, "1.5h" by
# Prometheus, "1d" by Go. (5) "90" is 90 milliseconds for ms and parse-duration, and an error for Go. "1h30" is an hour and a half for parse-duration alone.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save ms@2.1.3 parse-duration@2.1.9 iso8601-duration@2.1.4 > /dev/null 2>&1
cat > cases <<'EOT'
90s
1h30m
1.5h
1h30
1d
1y
90
PT36H
P1DT12H
P1M
-PT1S
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/prometheus/common v0.74.0
	github.com/sosodev/duration v1.4.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"github.com/sosodev/duration"
)

// show gives milliseconds.
func show(d time.Duration, err error) string {
	if err != nil {
		return "refused"
	}
	return fmt.Sprint(d.Milliseconds())
}

func iso(text string) (time.Duration, error) {
	d, err := duration.Parse(text)
	if err != nil {
		return 0, err
	}
	return d.ToTimeDuration(), nil
}

func main() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		p, err := model.ParseDuration(in.Text())
		fmt.Printf("%s: time %s, prometheus %s, sosodev %s,\n", in.Text(), show(time.ParseDuration(in.Text())), show(time.Duration(p), err), show(iso(in.Text())))
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { parse as iso, toSeconds } from 'iso8601-duration';
import ms from 'ms';
import parse from 'parse-duration';

const show = (read) => {
  try {
    return read() ?? 'refused';
  } catch {
    return 'refused';
  }
};
// How long a month is depends on the date from which it is counted.
const from = new Date('2026-01-01T00:00:00Z');
for (const text of readFileSync('cases', 'utf8').trim().split('\n')) {
  console.log(`ms ${show(() => ms(text))}, parse-duration ${show(() => parse(text))}, iso8601-duration ${show(() => toSeconds(iso(text), from) * 1000)}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/prometheus/common github.com/sosodev/duration
for package in ms parse-duration iso8601-duration; do echo "$package $(node -p "JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version")"; done
GOTOOLCHAIN=local timeout 120 go run . < cases > go.seen
TZ=UTC node main.mjs > node.seen
paste -d' ' go.seen node.seen | tee seen
cat > want <<'EOT'
90s: time 90000, prometheus 90000, sosodev refused, ms 90000, parse-duration 90000, iso8601-duration refused
1h30m: time 5400000, prometheus 5400000, sosodev refused, ms refused, parse-duration 5400000, iso8601-duration refused
1.5h: time 5400000, prometheus refused, sosodev refused, ms 5400000, parse-duration 5400000, iso8601-duration refused
1h30: time refused, prometheus refused, sosodev refused, ms refused, parse-duration 5400000, iso8601-duration refused
1d: time refused, prometheus 86400000, sosodev refused, ms 86400000, parse-duration 86400000, iso8601-duration refused
1y: time refused, prometheus 31536000000, sosodev refused, ms 31557600000, parse-duration 31557600000, iso8601-duration refused
90: time refused, prometheus refused, sosodev refused, ms 90, parse-duration 90, iso8601-duration refused
PT36H: time refused, prometheus refused, sosodev 129600000, ms refused, parse-duration 129600000, iso8601-duration 129600000
P1DT12H: time refused, prometheus refused, sosodev 129600000, ms refused, parse-duration 43200000, iso8601-duration 129600000
P1M: time refused, prometheus refused, sosodev 2628000000, ms refused, parse-duration 60000, iso8601-duration 2678400000
-PT1S: time refused, prometheus refused, sosodev -1000, ms refused, parse-duration -1000, iso8601-duration 1000
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
