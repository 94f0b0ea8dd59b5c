#!/usr/bin/env bash
# Guess: a flag of PostHog whose definition a host in Go and a plugin in Node have loaded, and evaluate themselves, has one value for one person in both: both libraries are PostHog's own.
# Seen: github.com/posthog/posthog-go v1.5.2 minds the case of "exact" and "is_not", posthog-node 5.70.0 (npm) does not, so that "Pro" is "pro" in Node alone; there true is "true", too, and not in Go. A
# number that the flag or the person has as text is an error for "gt" in Go, and compared in Node. Dates and semantic versions are for the server in Go, which is
# an error where it is not to be asked. A number that is to be "exact" the same number is true in Go, and not decided in Node.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save posthog-node@5.70.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/posthog/posthog-go v1.5.2
EOT
# operator and value of the flag, value of the person.
cat > cases.json <<'EOT'
[["exact", "pro", "pro"], ["exact", "pro", "Pro"], ["exact", ["pro", "team"], "Team"], ["is_not", "pro", "Pro"], ["icontains", "PRO", "pro"],
 ["exact", "true", true], ["exact", ["1"], "1"], ["exact", 7, 7], ["exact", "7", 7],
 ["gt", 10, 11], ["gt", "10", 11], ["gt", "10", "11"], ["gt", 10, "11"], ["regex", "^p.o$", "pro"],
 ["is_date_before", "2026-01-01", "2025-12-31"], ["semver_gt", "1.2.3", "1.10.0"]]
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/posthog/posthog-go"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type quiet struct{}

func (quiet) Debugf(string, ...any) {}
func (quiet) Logf(string, ...any)   {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

func main() {
	var cases [][3]any
	if err := json.Unmarshal(must(os.ReadFile("cases.json")), &cases); err != nil {
		panic(err)
	}
	var flags []any
	for i, c := range cases {
		property := map[string]any{"key": "plan", "type": "person", "operator": c[0], "value": c[1]}
		flags = append(flags, map[string]any{"id": i + 1, "key": fmt.Sprint("flag", i), "name": "", "active": true, "deleted": false,
			"filters": map[string]any{"groups": []any{map[string]any{"properties": []any{property}, "rollout_percentage": 100}}}})
	}
	// It gives the definitions, and whatever else it is asked nothing.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !strings.Contains(r.URL.Path, "local_evaluation") && !strings.Contains(r.URL.Path, "definitions") {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte("{}"))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"flags": flags, "group_type_mapping": map[string]any{}, "cohorts": map[string]any{}})
	}))
	defer server.Close()
	node := exec.Command("node", "main.mjs", server.URL)
	var inNode []string
	if err := json.Unmarshal(must(node.Output()), &inNode); err != nil {
		panic(err)
	}
	client := must(posthog.NewWithConfig("project", posthog.Config{Endpoint: server.URL, PersonalApiKey: "key", Logger: quiet{}, DefaultFeatureFlagsPollingInterval: time.Hour}))
	events := false
	for i, c := range cases {
		seen := "not decided"
		v, err := client.GetFeatureFlag(posthog.FeatureFlagPayload{Key: fmt.Sprint("flag", i), DistinctId: "person", OnlyEvaluateLocally: true, SendFeatureFlagEvents: &events,
			PersonProperties: posthog.NewProperties().Set("plan", c[2])})
		switch {
		case err != nil:
			seen = "error"
		case v != nil:
			seen = fmt.Sprint(v)
		}
		fmt.Printf("%s %s of %s: Go %s, Node %s\n", c[0], must(json.Marshal(c[1])), must(json.Marshal(c[2])), seen, inNode[i])
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync, writeSync } from 'node:fs';
import { PostHog } from 'posthog-node';

const client = new PostHog('project', { host: process.argv[2], personalApiKey: 'key', featureFlagsPollingInterval: 3_600_000 });
const out = [];
for (const [i, [, , plan]] of JSON.parse(readFileSync('cases.json', 'utf8')).entries()) {
  const v = await client.getFeatureFlag(`flag${i}`, 'person', { personProperties: { plan }, onlyEvaluateLocally: true, sendFeatureFlagEvents: false });
  out.push(v === undefined ? 'not decided' : String(v));
}
writeSync(1, JSON.stringify(out));
process.exit(0);
EOT
cat > want <<'EOT'
exact "pro" of "pro": Go true, Node true
exact "pro" of "Pro": Go false, Node true
exact ["pro","team"] of "Team": Go false, Node true
is_not "pro" of "Pro": Go true, Node false
icontains "PRO" of "pro": Go true, Node true
exact "true" of true: Go false, Node true
exact ["1"] of "1": Go true, Node true
exact 7 of 7: Go true, Node not decided
exact "7" of 7: Go false, Node not decided
gt 10 of 11: Go true, Node true
gt "10" of 11: Go error, Node true
gt "10" of "11": Go error, Node true
gt 10 of "11": Go error, Node true
regex "^p.o$" of "pro": Go true, Node true
is_date_before "2026-01-01" of "2025-12-31": Go error, Node true
semver_gt "1.2.3" of "1.10.0": Go error, Node true
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/posthog/posthog-go
node -p '"posthog-node " + JSON.parse(require("fs").readFileSync("node_modules/posthog-node/package.json")).version'
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
