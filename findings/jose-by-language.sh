#!/usr/bin/env bash
# Guess: what a host in Go signs or encrypts with go-jose a plugin in Node reads with jose, and the other way round, by each algorithm that both have: JOSE's standards say what
# stands where.
# Seen: it is so but for three. With a password (PBES2-HS256+A128KW) github.com/go-jose/go-jose/v4 v4.1.9 counts to 100,000 where nothing is said, and jose 6.2.18 (npm) refuses more than
# 10,000 where nothing is said (maxPBES2Count): as they come the one never reads the other's; Node's is read in Go. With a payload that is not encoded (b64 false, RFC 7797) go-jose signs "hello" and
# writes it in base64url all the same, which jose, as the RFC demands, verifies as what stands there, and refuses; and "hello" as jose writes it go-jose cannot parse. Detached payloads are verified
# both ways. And jose signs by "Ed25519" (RFC 9864), which go-jose does not know by that name, only by "EdDSA".
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save jose@6.2.18 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/go-jose/go-jose/v4 v4.1.9
EOT
cat > main.go <<'EOT'
package main

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os"

	"github.com/go-jose/go-jose/v4"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

var (
	private    = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	signatures = []jose.SignatureAlgorithm{jose.EdDSA, "Ed25519"}
)

func write() {
	texts := map[string]string{}
	for name, count := range map[string]int{"password": 0, "password, 10,000": 10000} {
		encrypter, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.PBES2_HS256_A128KW, Key: "secret", PBES2Count: count}, nil)
		must(err)
		encrypted, err := encrypter.Encrypt([]byte("hello"))
		must(err)
		texts[name], err = encrypted.CompactSerialize()
		must(err)
	}
	for _, b64 := range []bool{true, false} {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: private}, (&jose.SignerOptions{}).WithBase64(b64))
		must(err)
		signed, err := signer.Sign([]byte("hello"))
		must(err)
		texts[fmt.Sprint("signed, b64 ", b64)] = signed.FullSerialize()
		texts[fmt.Sprint("detached, b64 ", b64)], err = signed.DetachedCompactSerialize()
		must(err)
	}
	key, err := json.Marshal(jose.JSONWebKey{Key: private})
	must(err)
	texts["key"] = string(key)
	out, err := json.Marshal(texts)
	must(err)
	must(os.WriteFile("go.json", out, 0o600))
}

func read() {
	data, err := os.ReadFile("node.json")
	must(err)
	var texts map[string]string
	must(json.Unmarshal(data, &texts))

	encrypted, err := jose.ParseEncrypted(texts["password"], []jose.KeyAlgorithm{jose.PBES2_HS256_A128KW}, []jose.ContentEncryption{jose.A256GCM})
	must(err)
	text, err := encrypted.Decrypt("secret")
	fmt.Println("Go reads Node's, password:", string(text), err)
	for _, name := range []string{"signed, b64 true", "signed, b64 false", "signed by Ed25519"} {
		signed, err := jose.ParseSigned(texts[name], signatures)
		if err == nil {
			text, err = signed.Verify(private.Public())
		}
		if err != nil {
			text = nil
		}
		fmt.Printf("Go reads Node's, %s: %s %v\n", name, text, err)
	}
	detached, err := jose.ParseDetached(texts["detached, b64 false"], []byte("hello"), signatures)
	must(err)
	fmt.Println("Go reads Node's, detached, b64 false:", detached.DetachedVerify([]byte("hello"), private.Public()))
}

func main() {
	if os.Args[1] == "write" {
		write()
	} else {
		read()
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync, writeFileSync } from 'node:fs';
import * as jose from 'jose';

const { key, ...texts } = JSON.parse(readFileSync('go.json'));
const { d, ...open } = JSON.parse(key);
const bytes = (text) => new TextEncoder().encode(text);
const verifying = await jose.importJWK(open, 'EdDSA');
const readers = {
  password: (text) => jose.compactDecrypt(text, bytes('secret'), { keyManagementAlgorithms: ['PBES2-HS256+A128KW'] }),
  signed: (text) => jose.flattenedVerify(JSON.parse(text), verifying),
  detached: (text) => {
    const [head, , signature] = text.split('.');
    const payload = jose.decodeProtectedHeader({ protected: head, signature, payload: '' }).b64 === false ? 'hello' : jose.base64url.encode('hello');
    return jose.flattenedVerify({ protected: head, payload, signature }, verifying);
  },
};
for (const name of Object.keys(texts).sort()) {
  const seen = await readers[name.split(',')[0]](texts[name]).then(
    (read) => new TextDecoder().decode(read.plaintext ?? read.payload),
    (e) => `refused, ${e.message}`,
  );
  console.log(`Node reads Go's, ${name}: ${seen}`);
}

const signing = await jose.importJWK(JSON.parse(key), 'EdDSA');
const sign = (head) => new jose.FlattenedSign(bytes('hello')).setProtectedHeader(head).sign(signing);
const unencoded = await sign({ alg: 'EdDSA', b64: false, crit: ['b64'] });
writeFileSync('node.json', JSON.stringify({
  password: await new jose.CompactEncrypt(bytes('hello')).setProtectedHeader({ alg: 'PBES2-HS256+A128KW', enc: 'A256GCM' }).encrypt(bytes('secret')),
  'signed, b64 true': JSON.stringify(await sign({ alg: 'EdDSA' })),
  'signed, b64 false': JSON.stringify({ ...unencoded, payload: 'hello' }),
  'detached, b64 false': `${unencoded.protected}..${unencoded.signature}`,
  'signed by Ed25519': JSON.stringify(await new jose.FlattenedSign(bytes('hello')).setProtectedHeader({ alg: 'Ed25519' }).sign(await jose.importJWK(JSON.parse(key), 'Ed25519'))),
}));
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/go-jose/go-jose/v4
node -p '"jose " + JSON.parse(require("fs").readFileSync("node_modules/jose/package.json")).version'
GOTOOLCHAIN=local go build -o go-jose .
timeout 60 ./go-jose write
{
  timeout 120 node main.mjs
  timeout 60 ./go-jose read
} | tee seen
cat > want <<'EOT'
Node reads Go's, detached, b64 false: hello
Node reads Go's, detached, b64 true: hello
Node reads Go's, password: refused, JOSE Header "p2c" (PBES2 Count) out is of acceptable bounds
Node reads Go's, password, 10,000: hello
Node reads Go's, signed, b64 false: refused, signature verification failed
Node reads Go's, signed, b64 true: hello
Go reads Node's, password: hello <nil>
Go reads Node's, signed, b64 true: hello <nil>
Go reads Node's, signed, b64 false:  illegal base64 data at input byte 4
Go reads Node's, signed by Ed25519:  go-jose/go-jose: error in cryptographic primitive
Go reads Node's, detached, b64 false: <nil>
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
