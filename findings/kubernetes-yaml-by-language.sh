#!/usr/bin/env bash
# Guess: a manifest that kubectl applies is the same object for a tool in Node that reads it by loadYaml of Kubernetes' own client: defaultMode: 0400 and anchors stand in many manifests, the mode so in
# Kubernetes' documentation.
# Seen: sigs.k8s.io/yaml v1.6.0, by which kubectl reads, takes YAML 1.1: 0400 is 256, "on" and "yes" are true, 1_000 is 1000, "<<: *base" brings in what the anchor has. @kubernetes/client-node 2.0.1
# (npm) reads by js-yaml 5.5.0 as YAML 1.2: 0400 is the number 400, which is the mode 0620; "on", "yes" and 1_000 are texts, and without an error the limits that "<<" brings in are gone from the
# object, with a key "<<" in their place. "%YAML 1.1" before it changes nothing. What dumpYaml writes kubectl reads as it was: it puts "on" and "0400" in quotes.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @kubernetes/client-node@2.0.1 js-yaml@5.5.0 > /dev/null 2>&1
cat > pod.yaml <<'EOT'
apiVersion: v1
kind: Pod
metadata:
  name: plugin
spec:
  automountServiceAccountToken: on
  terminationGracePeriodSeconds: 1_000
  containers:
  - name: first
    resources:
      limits: &base
        cpu: "1"
        memory: 1Gi
  - name: second
    resources:
      limits:
        <<: *base
        cpu: "2"
  volumes:
  - name: keys
    secret:
      secretName: keys
      defaultMode: 0400
EOT
{ printf '%%YAML 1.1\n---\n'; cat pod.yaml; } > pod11.yaml
cat > main.mjs <<'EOT'
import { readFileSync, writeFileSync } from 'node:fs';
// The file of loadYaml by itself: the package's index needs a newer Node than 20, loadYaml does not.
import { dumpYaml, loadYaml } from './node_modules/@kubernetes/client-node/dist/yaml.js';

for (const file of ['pod.yaml', 'pod11.yaml']) {
  const { spec } = loadYaml(readFileSync(file, 'utf8'));
  console.log('Node,', file, JSON.stringify({
    automount: spec.automountServiceAccountToken,
    grace: spec.terminationGracePeriodSeconds,
    limits: spec.containers[1].resources.limits,
    mode: spec.volumes[0].secret.defaultMode,
  }));
}
writeFileSync('dumped.yaml', dumpYaml({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'c' }, data: { a: 'on', b: '0400', c: '1_000', d: '12:30' } }));
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require sigs.k8s.io/yaml v1.6.0
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

type object struct {
	Data map[string]string `json:"data"`
	Spec struct {
		Automount  any `json:"automountServiceAccountToken"`
		Grace      any `json:"terminationGracePeriodSeconds"`
		Containers []struct {
			Resources struct {
				Limits map[string]any `json:"limits"`
			} `json:"resources"`
		} `json:"containers"`
		Volumes []struct {
			Secret struct {
				Mode any `json:"defaultMode"`
			} `json:"secret"`
		} `json:"volumes"`
	} `json:"spec"`
}

func read(file string) object {
	data, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	var o object
	if err := yaml.Unmarshal(data, &o); err != nil {
		panic(err)
	}
	return o
}

func main() {
	for _, file := range []string{"pod.yaml", "pod11.yaml"} {
		spec := read(file).Spec
		limits, _ := json.Marshal(spec.Containers[1].Resources.Limits)
		fmt.Printf("Go, %s {automount:%v,grace:%v,limits:%s,mode:%v}\n", file, spec.Automount, spec.Grace, limits, spec.Volumes[0].Secret.Mode)
	}
	fmt.Println("Go, what Node wrote:", read("dumped.yaml").Data)
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m sigs.k8s.io/yaml
for package in @kubernetes/client-node js-yaml; do
  node -p 'const p = process.argv[1]; p + " " + JSON.parse(require("fs").readFileSync(`node_modules/${p}/package.json`)).version' "$package"
done
{
  timeout 120 node main.mjs
  GOTOOLCHAIN=local timeout 120 go run .
} | tee seen
cat > want <<'EOT'
Node, pod.yaml {"automount":"on","grace":"1_000","limits":{"<<":{"cpu":"1","memory":"1Gi"},"cpu":"2"},"mode":400}
Node, pod11.yaml {"automount":"on","grace":"1_000","limits":{"<<":{"cpu":"1","memory":"1Gi"},"cpu":"2"},"mode":400}
Go, pod.yaml {automount:true,grace:1000,limits:{"cpu":"2","memory":"1Gi"},mode:256}
Go, pod11.yaml {automount:true,grace:1000,limits:{"cpu":"2","memory":"1Gi"},mode:256}
Go, what Node wrote: map[a:on b:0400 c:1_000 d:12:30]
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
