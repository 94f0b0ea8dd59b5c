#!/usr/bin/env bash
# Guess: a repository of plugins that is written by go-tuf serves a client in Go and one in Node alike: what a target is and which role may name it is in
# TUF's specification, in whose words a delegation's paths are shell-style wildcards, or prefixes of the path's SHA-256 in hexadecimal.
# Seen: github.com/theupdateframework/go-tuf/v2 v2.4.2 and tuf-js 6.0.2 (npm) do not find the same targets. (1) "plugins/*" has "plugins/.greeter" in Go, and not in
# Node, whose wildcards leave out names with a dot before them. (2) "plugins/[!a]*" has "plugins/greeter" in Node; in Go "!" stands for itself there, and "[^a]" is
# the negation, which both take. (3) path_hash_prefixes are compared with the hash in base64 by go-tuf: "b" has in Node what begins with b in
# hexadecimal, and in Go what begins so in base64. (4) With an integer beyond 2^53 in a target's custom data Node finds none of the role's targets,
# "team was signed by 0/1 keys": it writes what it has read again, and verifies that.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save tuf-js@6.0.2 > /dev/null 2>&1
cat > find.mjs <<'EOT'
import { copyFileSync, mkdirSync } from 'node:fs';
import { Updater } from 'tuf-js';

const [url, dir, target] = process.argv.slice(2);
mkdirSync(`${dir}/node`);
copyFileSync(`${dir}/1.root.json`, `${dir}/node/root.json`);
const updater = new Updater({ metadataBaseUrl: url, metadataDir: `${dir}/node`, targetDir: `${dir}/node`, targetBaseUrl: url });
try {
  await updater.refresh();
  console.log((await updater.getTargetInfo(target)) ? 'found' : 'not found');
} catch (e) {
  console.log(`refused: ${e.message}`);
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/sigstore/sigstore v1.10.6
	github.com/theupdateframework/go-tuf/v2 v2.4.2
)
EOT
cat > main.go <<'EOT'
package main

import (
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// write makes a repository whose role "team" has one target and is given what a pattern matches, or, after "hash ", the prefixes of hashes.
func write(dir, pattern, target, custom string) {
	check(os.Mkdir(dir, 0o755))
	expires := time.Now().AddDate(0, 1, 0).UTC()
	_, private, err := ed25519.GenerateKey(nil)
	check(err)
	key := must(metadata.KeyFromPublicKey(private.Public()))
	signer := must(signature.LoadSigner(private, crypto.Hash(0)))
	root := metadata.Root(expires)
	for _, role := range []string{"root", "targets", "snapshot", "timestamp"} {
		check(root.Signed.AddKey(key, role))
	}
	id := root.Signed.Roles["root"].KeyIDs[0]
	team := metadata.Targets(expires)
	file := must(metadata.TargetFile().FromBytes(target, []byte("plugin"), "sha256"))
	if custom != "" {
		raw := json.RawMessage(custom)
		file.Custom = &raw
	}
	team.Signed.Targets[target] = file
	role := metadata.DelegatedRole{Name: "team", KeyIDs: []string{id}, Threshold: 1}
	if prefixes, ok := strings.CutPrefix(pattern, "hash "); ok {
		role.PathHashPrefixes = strings.Fields(prefixes)
	} else {
		role.Paths = []string{pattern}
	}
	targets := metadata.Targets(expires)
	targets.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{id: key}, Roles: []metadata.DelegatedRole{role}}
	snapshot := metadata.Snapshot(expires)
	snapshot.Signed.Meta["team.json"] = metadata.MetaFile(1)
	timestamp := metadata.Timestamp(expires)
	must(root.Sign(signer))
	must(team.Sign(signer))
	must(targets.Sign(signer))
	must(snapshot.Sign(signer))
	must(timestamp.Sign(signer))
	check(root.ToFile(filepath.Join(dir, "1.root.json"), false))
	check(team.ToFile(filepath.Join(dir, "1.team.json"), false))
	check(targets.ToFile(filepath.Join(dir, "1.targets.json"), false))
	check(snapshot.ToFile(filepath.Join(dir, "1.snapshot.json"), false))
	check(timestamp.ToFile(filepath.Join(dir, "timestamp.json"), false))
}

// find asks go-tuf for a target.
func find(url, dir, target string) string {
	c := must(config.New(url, must(os.ReadFile(filepath.Join(dir, "1.root.json")))))
	c.LocalMetadataDir, c.LocalTargetsDir = filepath.Join(dir, "go"), filepath.Join(dir, "go")
	u := must(updater.New(c))
	check(u.Refresh())
	if _, err := u.GetTargetInfo(target); err != nil && errors.Unwrap(err) == nil && strings.HasSuffix(err.Error(), "not found") {
		return "not found"
	} else if err != nil {
		return "refused: " + err.Error()
	}
	return "found"
}

func main() {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go http.Serve(l, http.FileServer(http.Dir(".")))
	holds := true
	for i, c := range [][5]string{
		{"plugins/*", "plugins/greeter", "", "found", "found"},
		{"plugins/*", "plugins/.greeter", "", "found", "not found"},
		{"plugins/[!a]*", "plugins/greeter", "", "not found", "found"},
		{"plugins/[^a]*", "plugins/greeter", "", "found", "found"},
		{"hash b", "plugins/greeter", "", "not found", "found"}, // bb0b… in hexadecimal, uwuWj… in base64
		{"hash u", "plugins/greeter", "", "found", "not found"},
		{"plugins/*", "plugins/greeter", `{"build":9007199254740991}`, "found", "found"},
		{"plugins/*", "plugins/greeter", `{"build":9007199254740993}`, "found", "refused: Unable to load targets error Error: team was signed by 0/1 keys"},
	} {
		dir := fmt.Sprint("repository", i)
		write(dir, c[0], c[1], c[2])
		url := "http://" + l.Addr().String() + "/" + dir
		inGo, inNode := find(url, dir, c[1]), strings.TrimSpace(string(must(exec.Command("node", "find.mjs", url, dir, c[1]).CombinedOutput())))
		fmt.Printf("%q has %q %s: go-tuf %s, tuf-js %s\n", c[0], c[1], c[2], inGo, inNode)
		holds = holds && inGo == c[3] && inNode == c[4]
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/theupdateframework/go-tuf/v2
echo "tuf-js $(node -p 'require("./node_modules/tuf-js/package.json").version')"
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
