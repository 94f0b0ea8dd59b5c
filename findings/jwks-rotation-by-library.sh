#!/usr/bin/env bash
# Guess: a library that keeps an issuer's JWK set from its URL asks for it again when a token names a key (kid) that it has not, so that a token of a key that
# the issuer has just made is verified, whenever the issuer changes keys.
# Seen: of four only github.com/coreos/go-oidc/v3 v3.21.0 does so each time. jwk.Cache of github.com/lestrrat-go/jwx/v3 v3.4.0 never does: it asks by the
# clock, and where nothing else is said, not within 15 minutes. github.com/MicahParks/keyfunc/v3 v3.9.2 (NewDefault) does for the first such token, and then
# not for five minutes: tokens of a second new key fail. jose 6.2.18 (npm, createRemoteJWKSet) does, but not within 30 s of when it asked last. So an issuer
# whose replicas start one after the other, each with a key of its own, or a test that changes keys twice, has tokens that one library takes and the others
# refuse.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save jose@6.2.18 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/MicahParks/keyfunc/v3 v3.9.2
	github.com/coreos/go-oidc/v3 v3.21.0
	github.com/go-jose/go-jose/v4 v4.1.9
	github.com/golang-jwt/jwt/v5 v5.3.0
	github.com/lestrrat-go/httprc/v3 v3.0.1
	github.com/lestrrat-go/jwx/v3 v3.4.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/httprc/v3"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// issuer has one key at a time, and serves it.
type issuer struct {
	mu      sync.Mutex
	key     *ecdsa.PrivateKey
	kid     int
	answers int
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answers++
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: strconv.Itoa(i.kid), Algorithm: "ES256", Use: "sig"}}})
}

// rotate makes another key the issuer's, and returns a token of it.
func (i *issuer) rotate() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key, i.answers = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), 0
	i.kid++
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: strconv.Itoa(i.kid)}}, nil))
	return must(josejwt.Signed(signer).Claims(josejwt.Claims{Issuer: "issuer", Subject: "plugin", Expiry: josejwt.NewNumericDate(time.Now().Add(time.Hour))}).Serialize())
}

// see lets a library verify a token of the first key, of the second and of the third.
func see(name string, make func(url string) func(token string) error) string {
	i := &issuer{}
	first := i.rotate()
	s := httptest.NewServer(i)
	defer s.Close()
	verify, line := make(s.URL), name+":"
	for n := range 3 {
		token := first
		if n > 0 {
			token = i.rotate()
		}
		word := "verified"
		if err := verify(token); err != nil {
			word = "refused"
		}
		i.mu.Lock()
		line += fmt.Sprintf(" key %d %s, asked %t;", n+1, word, i.answers > 0)
		i.mu.Unlock()
	}
	return line
}

func main() {
	ctx := context.Background()
	seen := []string{
		see("go-oidc", func(url string) func(string) error {
			set := oidc.NewRemoteKeySet(ctx, url)
			return func(token string) error { _, err := set.VerifySignature(ctx, token); return err }
		}),
		see("jwx", func(url string) func(string) error {
			cache := must(jwk.NewCache(ctx, httprc.NewClient()))
			if err := cache.Register(ctx, url); err != nil {
				panic(err)
			}
			set := must(cache.CachedSet(url))
			return func(token string) error { _, err := jwxjwt.Parse([]byte(token), jwxjwt.WithKeySet(set)); return err }
		}),
		see("keyfunc", func(url string) func(string) error {
			set := must(keyfunc.NewDefaultCtx(ctx, []string{url}))
			return func(token string) error { _, err := jwt.Parse(token, set.Keyfunc); return err }
		}),
		see("jose", func(url string) func(string) error {
			node := exec.Command("node", "main.mjs", url)
			node.Stderr = os.Stderr
			in, out := must(node.StdinPipe()), must(node.StdoutPipe())
			if err := node.Start(); err != nil {
				panic(err)
			}
			answers := bufio.NewReader(out)
			return func(token string) error {
				must(io.WriteString(in, token+"\n"))
				if answer := must(answers.ReadString('\n')); strings.TrimSpace(answer) != "ok" {
					return fmt.Errorf("%s", answer)
				}
				return nil
			}
		}),
	}
	want := []string{
		"go-oidc: key 1 verified, asked true; key 2 verified, asked true; key 3 verified, asked true;",
		"jwx: key 1 verified, asked true; key 2 refused, asked false; key 3 refused, asked false;",
		"keyfunc: key 1 verified, asked true; key 2 verified, asked true; key 3 refused, asked false;",
		"jose: key 1 verified, asked true; key 2 refused, asked false; key 3 refused, asked false;",
	}
	for _, line := range seen {
		fmt.Println(line)
	}
	if !slices.Equal(seen, want) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
cat > main.mjs <<'EOT'
import { createInterface } from 'node:readline';
import { createRemoteJWKSet, jwtVerify } from 'jose';

const set = createRemoteJWKSet(new URL(process.argv[2]));
for await (const token of createInterface({ input: process.stdin })) {
  console.log(await jwtVerify(token, set).then(() => 'ok', (err) => err.code));
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/coreos/go-oidc/v3 github.com/lestrrat-go/jwx/v3 github.com/MicahParks/keyfunc/v3
node -p '"jose " + JSON.parse(require("fs").readFileSync("node_modules/jose/package.json")).version'
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
