#!/usr/bin/env bash
# Guess: http.Server.ServeTLS clones Server.TLSConfig, as its source begins with, and only reads it: two servers may share one.
# Seen: with Go 1.26 each ServeTLS adds "h2" and "http/1.1" to NextProtos of the caller's own configuration when it sets up
# HTTP/2. Two servers that share one race, and what was given is changed afterwards.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=local
go mod init example.com/finding > /dev/null 2>&1
cat > main.go <<'GO'
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

func main() {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	shared := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	var serving sync.WaitGroup
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		s := &http.Server{TLSConfig: shared}
		serving.Go(func() { _ = s.ServeTLS(l, "", "") })
		time.AfterFunc(300*time.Millisecond, func() { _ = s.Close() })
	}
	serving.Wait()
	fmt.Println("NextProtos of the shared configuration afterwards:", shared.NextProtos)
}
GO
go version
go build -race -o race .
out=$(GORACE=exitcode=0 timeout 60 ./race 2>&1)
grep -c 'WARNING: DATA RACE' <<< "$out" | sed 's/$/ data races/' || true
grep NextProtos <<< "$out" | tail -n 1
if ! grep -q 'WARNING: DATA RACE' <<< "$out" || ! grep -q 'afterwards: \[h2 http/1.1' <<< "$out"; then
  echo CHANGED
  exit 1
fi
