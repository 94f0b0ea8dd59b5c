#!/usr/bin/env bash
# Guess: a host in Go and its tools in Node may keep the times of a plugin's jobs as one text of cron's, in a time zone: what the libraries take has the same
# next times, a daily job runs once a day and an hourly one each hour, also when clocks are changed.
# Seen: of github.com/robfig/cron/v3 v3.0.1, github.com/adhocore/gronx v1.20.4, croner 11.0.1 and cron-parser 5.10.6 (npm) no two agree. In New York in 2026:
# (1) of "30 2 * * *", which the change of March leaves out, both of Go skip that day, croner runs it at 3:00 and cron-parser at 3:30. (2) "30 1 * * *", which
# November has twice, robfig's runs twice and the others once. (3) Of "0 * * * *" gronx leaves out the second 1:00, so that an hour has no run.
# (4) "0 0 */2 * 1" is each second day and each Monday for three of them, and for gronx the Mondays that are such a day. (5) "0 0 * * 7" is Sunday, and an
# error for robfig's; "5/15 * * * *" is an error for croner alone.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save croner@11.0.1 cron-parser@5.10.6 > /dev/null 2>&1
cat > jobs.txt <<'EOT'
30 2 * * *|2026-03-07T12:00:00Z
30 1 * * *|2026-10-31T12:00:00Z
0 * * * *|2026-11-01T04:30:00Z
0 0 */2 * 1|2026-01-01T12:00:00Z
0 0 13 * 5|2026-01-08T12:00:00Z
0 0 * * 7|2026-01-01T12:00:00Z
5/15 * * * *|2026-01-01T00:00:00Z
EOT
cat > main.mjs <<'EOT'
import { Cron } from 'croner';
import { CronExpressionParser } from 'cron-parser';
import { readFileSync } from 'node:fs';

const zone = 'America/New_York';
const say = (library, job, next) => {
  let times;
  try {
    times = next().map((at) => at.toISOString().slice(5, 16)).join(' ');
  } catch {
    times = 'refused';
  }
  console.log(`${job}: ${library} ${times}`);
};
for (const line of readFileSync('jobs.txt', 'utf8').trim().split('\n')) {
  const [job, from] = line.split('|');
  say('croner', job, () => new Cron(job, { timezone: zone }).nextRuns(3, new Date(from)));
  say('cron-parser', job, () => CronExpressionParser.parse(job, { tz: zone, currentDate: new Date(from) }).take(3).map((at) => at.toDate()));
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/adhocore/gronx v1.20.4
	github.com/robfig/cron/v3 v3.0.1
)
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"os"
	"strings"
	"time"
	_ "time/tzdata"

	"github.com/adhocore/gronx"
	"github.com/robfig/cron/v3"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func say(library, job string, at time.Time, next func(time.Time) (time.Time, error)) {
	times := ""
	for range 3 {
		var err error
		if at, err = next(at); err != nil {
			times = " refused"
			break
		}
		times += at.UTC().Format(" 01-02T15:04")
	}
	fmt.Printf("%s: %s%s\n", job, library, times)
}

func main() {
	zone := must(time.LoadLocation("America/New_York"))
	for line := range strings.Lines(string(must(os.ReadFile("jobs.txt")))) {
		job, from, _ := strings.Cut(strings.TrimSpace(line), "|")
		at := must(time.Parse(time.RFC3339, from)).In(zone)
		say("robfig", job, at, func(at time.Time) (time.Time, error) {
			schedule, err := cron.ParseStandard(job)
			if err != nil {
				return at, err
			}
			return schedule.Next(at), nil
		})
		say("gronx", job, at, func(at time.Time) (time.Time, error) { return gronx.NextTickAfter(job, at, false) })
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/robfig/cron/v3 github.com/adhocore/gronx
for package in croner cron-parser; do
  node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"
done
{ GOTOOLCHAIN=local timeout 120 go run .; node main.mjs; } | sort | tee seen
sort > want <<'EOT'
30 2 * * *: robfig 03-09T06:30 03-10T06:30 03-11T06:30
30 2 * * *: gronx 03-09T06:30 03-10T06:30 03-11T06:30
30 2 * * *: croner 03-08T07:00 03-09T06:30 03-10T06:30
30 2 * * *: cron-parser 03-08T07:30 03-09T06:30 03-10T06:30
30 1 * * *: robfig 11-01T05:30 11-01T06:30 11-02T06:30
30 1 * * *: gronx 11-01T05:30 11-02T06:30 11-03T06:30
30 1 * * *: croner 11-01T05:30 11-02T06:30 11-03T06:30
30 1 * * *: cron-parser 11-01T05:30 11-02T06:30 11-03T06:30
0 * * * *: robfig 11-01T05:00 11-01T06:00 11-01T07:00
0 * * * *: gronx 11-01T05:00 11-01T07:00 11-01T08:00
0 * * * *: croner 11-01T05:00 11-01T06:00 11-01T07:00
0 * * * *: cron-parser 11-01T05:00 11-01T06:00 11-01T07:00
0 0 */2 * 1: robfig 01-03T05:00 01-05T05:00 01-07T05:00
0 0 */2 * 1: gronx 01-05T05:00 01-19T05:00 02-09T05:00
0 0 */2 * 1: croner 01-03T05:00 01-05T05:00 01-07T05:00
0 0 */2 * 1: cron-parser 01-03T05:00 01-05T05:00 01-07T05:00
0 0 13 * 5: robfig 01-09T05:00 01-13T05:00 01-16T05:00
0 0 13 * 5: gronx 01-09T05:00 01-13T05:00 01-16T05:00
0 0 13 * 5: croner 01-09T05:00 01-13T05:00 01-16T05:00
0 0 13 * 5: cron-parser 01-09T05:00 01-13T05:00 01-16T05:00
0 0 * * 7: robfig refused
0 0 * * 7: gronx 01-04T05:00 01-11T05:00 01-18T05:00
0 0 * * 7: croner 01-04T05:00 01-11T05:00 01-18T05:00
0 0 * * 7: cron-parser 01-04T05:00 01-11T05:00 01-18T05:00
5/15 * * * *: robfig 01-01T00:05 01-01T00:20 01-01T00:35
5/15 * * * *: gronx 01-01T00:05 01-01T00:20 01-01T00:35
5/15 * * * *: croner refused
5/15 * * * *: cron-parser 01-01T00:05 01-01T00:20 01-01T00:35
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
