#!/usr/bin/env bash
# Guess: a token in PASETO (v4) that a host in Go makes valid from a little before it was issued, so that a plugin whose clock is behind takes it, is taken in Node; and Node makes one that is valid
# from tomorrow on, for which its library takes "1 day" as nbf by its own documentation. PASETO has no rule between nbf and iat.
# Seen: paseto-ts 2.0.7 (npm) refuses each token whose nbf is before its iat (it "is not greater than iat"), those of aidanwoods.dev/go-paseto v1.6.0, which reads them, among them; and it makes none whose
# nbf is in the future, "1 day" included ("is in the future"). With nbf and iat of one second, as in go-paseto's documentation, it reads Go's. With validatePayload: false it reads all of them.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save paseto-ts@2.0.7 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require aidanwoods.dev/go-paseto v1.6.0
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"aidanwoods.dev/go-paseto"
)

func main() {
	key, err := paseto.V4SymmetricKeyFromBytes(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	now := time.Now()
	texts := map[string]string{"key": hex.EncodeToString(key.ExportBytes())}
	for _, name := range []string{"as issued", "30 s before"} {
		token := paseto.NewToken()
		token.SetIssuedAt(now)
		token.SetNotBefore(now)
		if name == "30 s before" {
			token.SetNotBefore(now.Add(-30 * time.Second))
		}
		token.SetExpiration(now.Add(time.Hour))
		texts[name] = token.V4Encrypt(key, nil)
		_, err := paseto.NewParser().ParseV4Local(key, texts[name], nil)
		fmt.Printf("Go, nbf %s: %v\n", name, err)
	}
	out, err := json.Marshal(texts)
	if err != nil {
		panic(err)
	}
	if err := os.WriteFile("go.json", out, 0o600); err != nil {
		panic(err)
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { decrypt, encrypt } from 'paseto-ts/v4';

const texts = JSON.parse(readFileSync('go.json'));
const key = `k4.local.${Buffer.from(texts.key, 'hex').toString('base64url')}`;
const attempt = (f) => {
  try {
    f();
    return 'taken';
  } catch (e) {
    return `refused, ${e.message}`;
  }
};
for (const name of ['as issued', '30 s before']) {
  console.log(`Node, Go's with nbf ${name}: ${attempt(() => decrypt(key, texts[name]))}`);
  console.log(`  with validatePayload false: ${attempt(() => decrypt(key, texts[name], { validatePayload: false }))}`);
}
console.log(`Node makes one with exp 2 days, nbf 1 day: ${attempt(() => encrypt(key, { exp: '2 days', nbf: '1 day' }))}`);
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m aidanwoods.dev/go-paseto
node -p '"paseto-ts " + JSON.parse(require("fs").readFileSync("node_modules/paseto-ts/package.json")).version'
{
  GOTOOLCHAIN=local timeout 120 go run .
  timeout 120 node main.mjs
} | tee seen
cat > want <<'EOT'
Go, nbf as issued: <nil>
Go, nbf 30 s before: <nil>
Node, Go's with nbf as issued: taken
  with validatePayload false: taken
Node, Go's with nbf 30 s before: refused, Payload must have a valid "nbf" claim (is not greater than "iat")
  with validatePayload false: taken
Node makes one with exp 2 days, nbf 1 day: refused, Payload must have a valid "nbf" claim (is in the future)
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
