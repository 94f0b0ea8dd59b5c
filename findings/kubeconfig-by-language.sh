#!/usr/bin/env bash
# Guess: one kubeconfig, with a plugin that gives the credentials (exec), is the same for a host in Go and for its tools in Node: its fields and the protocol
# of these plugins are Kubernetes' own, and both libraries are.
# Seen: with k8s.io/client-go v0.37.2 and @kubernetes/client-node 1.4.0 (npm): (1) a plugin that names no expiry is asked once by Go and for each request by
# Node. (2) It has KUBERNETES_EXEC_INFO in Go, with the cluster where provideClusterInfo is set, and not in Node. (3) Of a plugin that fails, Go's error has
# its exit code and not what it said, which goes to standard error, Node's has what it said. (4) tokenFile, for the token that a sidecar renews, is not read
# by Node, which sends its requests without any, and without a word. (5) Two files in KUBECONFIG that both have a cluster of one name are the first of it in
# Go, and "Duplicate cluster" in Node; a file that is missing or empty is left out in Go, and an error in Node.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @kubernetes/client-node@1.4.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require k8s.io/client-go v0.37.2
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func write(name, text string) string {
	name = must(filepath.Abs(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		panic(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		panic(err)
	}
	return name
}

// inGo and inNode return what n requests had, by the token that the server saw.
func inGo(n int) (out []string) {
	c, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		return []string{err.Error()}
	}
	client := must(rest.HTTPClientFor(c))
	for range n {
		r, err := client.Get(c.Host + "/version")
		if err != nil {
			out = append(out, err.Error())
			continue
		}
		var v struct{ GitVersion string }
		if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
			panic(err)
		}
		r.Body.Close()
		out = append(out, v.GitVersion)
	}
	return out
}

func inNode(n int) []string {
	node := exec.Command("node", "main.mjs", fmt.Sprint(n))
	node.Env = append(os.Environ(), "NODE_NO_WARNINGS=1")
	return strings.Split(strings.TrimSpace(string(must(node.Output()))), "\n")
}

func main() {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		who := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if who == "" {
			who = "nobody"
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"major": "1", "minor": "37", "gitVersion": who})
	}))
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	config := func(name, user string) string {
		return write(name, fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: context, contexts: [{name: context, context: {cluster: cluster, user: user}}],
clusters: [{name: cluster, cluster: {server: %q, certificate-authority-data: %s}}], users: [{name: user, user: %s}]}`, s.URL, ca, user))
	}
	runs := must(filepath.Abs("runs"))
	// plugin answers with a token that says which run it is of, and whether it was told the cluster.
	plugin := func(name, version, begin string) string {
		return write(name, `#!/bin/sh
echo x >> `+runs+`
`+begin+`
printf '{"apiVersion":"client.authentication.k8s.io/`+version+`","kind":"ExecCredential","status":{"token":"run-%s%s"}}' $(wc -l < `+runs+`) $told
`)
	}
	run := func(command, more string) string {
		return fmt.Sprintf("{exec: {apiVersion: client.authentication.k8s.io/v1, command: %q%s}}", command, more)
	}
	const never = ", interactiveMode: Never"
	token := write("token", "from-file")
	first := config("first", "{token: first}")
	cases := []struct {
		what, kubeconfig string
		n                int
		goes, nodes      string
	}{
		{"no expiry", config("1", run(plugin("bin/plugin", "v1", ""), never)), 3, "run-1 | run-1 | run-1", "run-1 | run-2 | run-3"},
		{"provideClusterInfo", config("2", run(plugin("bin/told", "v1", "told=${KUBERNETES_EXEC_INFO:+-told}"), never+", provideClusterInfo: true")), 1, "run-1-told", "run-1"},
		{"failure", config("3", run(plugin("bin/fails", "v1", "echo why it failed >&2; exit 3"), never)), 1, "exec: executable bin/fails failed with exit code 3", "why it failed"},
		{"tokenFile", config("4", fmt.Sprintf("{tokenFile: %q}", token)), 1, "from-file", "nobody"},
		{"two files", first + ":" + config("second", "{token: second}"), 1, "first", "Duplicate cluster: cluster"},
		{"a missing file", "/nowhere/config:" + first, 1, "first", "ENOENT: no such file or directory, open '/nowhere/config'"},
		{"an empty file", write("empty", "") + ":" + first, 1, "first", "Cannot read properties of undefined (reading 'clusters')"},
	}
	here := must(os.Getwd()) + "/"
	short := regexp.MustCompile(`^Get "[^"]*": getting credentials: `)
	changed := false
	for _, c := range cases {
		os.Setenv("KUBECONFIG", c.kubeconfig)
		for lang, in := range map[string]func(int) []string{"Go": inGo, "Node": inNode} {
			os.Remove(runs)
			seen := in(c.n)
			for i := range seen {
				seen[i] = strings.ReplaceAll(short.ReplaceAllString(seen[i], ""), here, "")
			}
			want := map[string]string{"Go": c.goes, "Node": c.nodes}[lang]
			fmt.Printf("%s, %s: %s\n", c.what, lang, strings.Join(seen, " | "))
			changed = changed || !slices.Equal(seen, strings.Split(want, " | "))
		}
	}
	if changed {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
cat > main.mjs <<'EOT'
import { KubeConfig, VersionApi } from '@kubernetes/client-node';

const said = (err) => console.log(String(err.message).trim());
try {
  const config = new KubeConfig();
  config.loadFromDefault();
  const api = config.makeApiClient(VersionApi);
  for (let i = 0; i < Number(process.argv[2]); i++) await api.getCode().then((v) => console.log(v.gitVersion), said);
} catch (err) {
  said(err);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m k8s.io/client-go
node -p '"@kubernetes/client-node " + JSON.parse(require("fs").readFileSync("node_modules/@kubernetes/client-node/package.json")).version'
GOTOOLCHAIN=local go build -o finding .
timeout 300 ./finding
