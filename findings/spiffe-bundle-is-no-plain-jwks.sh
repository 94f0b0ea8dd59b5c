#!/usr/bin/env bash
# Guess: a SPIFFE trust bundle, which SPIFFE's standards call a JWK set, serves any JWT library as one: with it a JWT-SVID of the
# trust domain is verified by its kid.
# Seen: keys of a bundle as github.com/spiffe/go-spiffe/v2 v2.9.0 marshals it have "use":"jwt-svid". jose 6.2.18 (npm) and
# github.com/lestrrat-go/jwx/v3 v3.4.0 take the bundle without a word, and use only keys whose use, where one is said, is "sig": the token is
# refused, in jose as if there were no such key. github.com/MicahParks/keyfunc/v3 v3.9.2 and go-jose v4.1.9 do not look at it. With what
# go-spiffe's jwtbundle.Bundle marshals, which has no use, all verify.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save jose@6.2.18 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/MicahParks/keyfunc/v3 v3.9.2
	github.com/go-jose/go-jose/v4 v4.1.9
	github.com/golang-jwt/jwt/v5 v5.3.1
	github.com/lestrrat-go/jwx/v3 v3.4.0
	github.com/spiffe/go-spiffe/v2 v2.9.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	gojwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
)

func main() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	bundle := spiffebundle.New(spiffeid.RequireTrustDomainFromString("example.org"))
	check(bundle.AddJWTAuthority("key1", &key.PublicKey))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "key1"}}, nil)
	check(err)
	token, err := josejwt.Signed(signer).Claims(josejwt.Claims{
		Subject: "spiffe://example.org/plugin", Audience: josejwt.Audience{"host"}, Expiry: josejwt.NewNumericDate(time.Now().Add(time.Hour)),
	}).Serialize()
	check(err)
	check(os.WriteFile("token", []byte(token), 0o600))
	_, err = jwtsvid.ParseAndValidate(token, bundle, []string{"host"})
	fmt.Println("go-spiffe:", err == nil)
	whole, err := bundle.Marshal()
	check(err)
	keys, err := bundle.JWTBundle().Marshal()
	check(err)
	for _, b := range []struct {
		name string
		set  []byte
	}{{"bundle", whole}, {"jwtbundle", keys}} {
		check(os.WriteFile(b.name, b.set, 0o600))
		var read struct{ Keys []struct{ Use string } }
		check(json.Unmarshal(b.set, &read))
		fmt.Printf("%s: use %q\n", b.name, read.Keys[0].Use)

		var set jose.JSONWebKeySet
		check(json.Unmarshal(b.set, &set))
		parsed, err := josejwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
		check(err)
		fmt.Printf("%s: go-jose: %t\n", b.name, parsed.Claims(set, &josejwt.Claims{}) == nil)

		byID, err := keyfunc.NewJWKSetJSON(b.set)
		check(err)
		_, err = gojwt.Parse(token, byID.Keyfunc)
		fmt.Printf("%s: keyfunc: %t\n", b.name, err == nil)

		jwks, err := jwk.Parse(b.set)
		check(err)
		_, err = jwxjwt.Parse([]byte(token), jwxjwt.WithKeySet(jwks, jws.WithInferAlgorithmFromKey(true)))
		fmt.Printf("%s: jwx: %t\n", b.name, err == nil)
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
grep -E 'keyfunc|go-jose|jwx|go-spiffe' go.mod
GOTOOLCHAIN=local go run . | tee seen
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { createLocalJWKSet, jwtVerify } from 'jose';

for (const name of ['bundle', 'jwtbundle']) {
  const keys = createLocalJWKSet(JSON.parse(readFileSync(name)));
  console.log(`${name}: jose:`, await jwtVerify(readFileSync('token', 'utf8'), keys, { audience: 'host' }).then(() => true, (e) => e.code));
}
EOT
echo "node $(node --version), jose $(node -p 'require("./node_modules/jose/package.json").version')"
node main.mjs | tee -a seen
cat > want <<'EOT'
go-spiffe: true
bundle: use "jwt-svid"
bundle: go-jose: true
bundle: keyfunc: true
bundle: jwx: false
jwtbundle: use ""
jwtbundle: go-jose: true
jwtbundle: keyfunc: true
jwtbundle: jwx: true
bundle: jose: ERR_JWKS_NO_MATCHING_KEY
jwtbundle: jose: true
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
