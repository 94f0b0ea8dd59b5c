#!/usr/bin/env bash
# Guess: a private key for ES256 that "openssl ecparam -name prime256v1 -genkey" wrote, the command that most instructions have, serves whatever reads keys in PEM: TLS
# and tokens, in Go and in Node.
# Seen: OpenSSL 3.0 writes two blocks, "EC PARAMETERS" and behind it "EC PRIVATE KEY", in one file. crypto/tls of Go 1.26 (X509KeyPair) passes over the first, and so do node:crypto,
# node:tls and jsonwebtoken 9.0.3 (npm, Node 22.23.3). github.com/golang-jwt/jwt/v5 v5.3.1 (ParseECPrivateKeyFromPEM), github.com/lestrrat-go/jwx/v3 v3.4.0 (jwk.ParseKey, WithPEM)
# and golang.org/x/crypto/ssh v0.59.0 (ParseRawPrivateKey) look at the first block alone and refuse the key, golang-jwt with "asn1: structure error: tags don't match".
# So the key of a host's TLS does not sign its tokens. With -noout, and from "openssl genpkey", the file has one block, and all of them take it.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@22.23.3 jsonwebtoken@9.0.3 > /dev/null 2>&1
openssl ecparam -name prime256v1 -genkey -out genkey.pem
openssl ecparam -name prime256v1 -genkey -noout -out noout.pem
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out genpkey.pem 2> /dev/null
for key in genkey noout genpkey; do
  openssl req -x509 -new -key $key.pem -subj /CN=localhost -days 1 -out $key.crt
done
cat > go.mod <<'EOM'
module finding

go 1.26.0

require (
	github.com/golang-jwt/jwt/v5 v5.3.1
	github.com/lestrrat-go/jwx/v3 v3.4.0
	golang.org/x/crypto v0.59.0
)
EOM
cat > main.go <<'EOM'
package main

import (
	"crypto/tls"
	"fmt"
	"os"

	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"golang.org/x/crypto/ssh"
)

func main() {
	for _, name := range os.Args[1:] {
		key, err := os.ReadFile(name + ".pem")
		if err != nil {
			panic(err)
		}
		said := func(err error) string {
			if err == nil {
				return "taken"
			}
			fmt.Fprintln(os.Stderr, err)
			return "refused"
		}
		_, forTLS := tls.LoadX509KeyPair(name+".crt", name+".pem")
		_, forJWT := jwt.ParseECPrivateKeyFromPEM(key)
		_, forJWX := jwk.ParseKey(key, jwk.WithPEM(true))
		_, forSSH := ssh.ParseRawPrivateKey(key)
		fmt.Printf("%s: crypto/tls %s, golang-jwt %s, jwx %s, x/crypto/ssh %s\n", name, said(forTLS), said(forJWT), said(forJWX), said(forSSH))
	}
}
EOM
cat > main.cjs <<'EOM'
'use strict';
const { readFileSync } = require('node:fs');
const crypto = require('node:crypto');
const tls = require('node:tls');
const jwt = require('jsonwebtoken');
const said = (f) => { try { f(); return 'taken'; } catch (e) { console.error(e.message); return 'refused'; } };
for (const name of process.argv.slice(2)) {
  const key = readFileSync(name + '.pem');
  const taken = [
    'node:crypto ' + said(() => crypto.createPrivateKey(key)),
    'node:tls ' + said(() => tls.createSecureContext({ key, cert: readFileSync(name + '.crt') })),
    'jsonwebtoken ' + said(() => jwt.sign({ sub: 'plugin' }, key, { algorithm: 'ES256' })),
  ];
  console.log(`${name}: ${taken.join(', ')}`);
}
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
openssl version
go list -m github.com/golang-jwt/jwt/v5 github.com/lestrrat-go/jwx/v3 golang.org/x/crypto
node_modules/.bin/node -p '"node " + process.version + ", jsonwebtoken " + JSON.parse(require("fs").readFileSync("node_modules/jsonwebtoken/package.json")).version'
grep -h -e -----BEGIN genkey.pem
GOTOOLCHAIN=local timeout 120 go run . genkey noout genpkey > seen
node_modules/.bin/node main.cjs genkey noout genpkey >> seen
cat seen
cat > want <<'EOM'
genkey: crypto/tls taken, golang-jwt refused, jwx refused, x/crypto/ssh refused
noout: crypto/tls taken, golang-jwt taken, jwx taken, x/crypto/ssh taken
genpkey: crypto/tls taken, golang-jwt taken, jwx taken, x/crypto/ssh taken
genkey: node:crypto taken, node:tls taken, jsonwebtoken taken
noout: node:crypto taken, node:tls taken, jsonwebtoken taken
genpkey: node:crypto taken, node:tls taken, jsonwebtoken taken
EOM
cmp -s seen want || { echo CHANGED; exit 1; }
