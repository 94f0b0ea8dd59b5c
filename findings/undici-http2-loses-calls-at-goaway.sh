#!/usr/bin/env bash
# Guess: a service of net/http that lets a connection of HTTP/2 go, as with "Connection: close" or on its way down, costs no caller a call: it says GOAWAY twice, first with the highest
# id there is, so that what is on its way still arrives, and what the last one does not count the client can send on another connection, as nothing was done for it.
# Seen: undici 8.12.4 (npm, Node 22.23.3), which speaks HTTP/2 by itself where a server of TLS offers it, fails some of 1,000 calls, 50 at a time, of each of which
# fetch() says "fetch failed", with the cause UND_ERR_INFO, 'HTTP/2: "GOAWAY" frame received with code 0'. The service never saw them. With @connectrpc/connect-web 2.3.0 on that
# fetch they are unknown, so that a caller that tries again by codes does not. The service is connectrpc.com/connect v1.21.1 on Go 1.26, and lets
# a connection go at each hundredth call. @grpc/grpc-js 1.14.7, connect-go, and undici itself with allowH2: false lose none.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@22.23.3 undici@8.12.4 @grpc/grpc-js@1.14.7 @connectrpc/connect@2.3.0 @connectrpc/connect-web@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
cat > go.mod <<'EOM'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/protobuf v1.36.12
)
EOM
cat > main.go <<'EOM'
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type number = wrapperspb.Int64Value

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der := must(x509.CreateCertificate(rand.Reader, t, t, key.Public(), key))
	if err := os.WriteFile("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		panic(err)
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	at := strings.Replace(l.Addr().String(), "127.0.0.1", "localhost", 1)
	var served atomic.Int64
	// A call with 0 is counted, another says how many were, and begins anew.
	handler := connect.NewUnaryHandler("/e.Count/Up", func(_ context.Context, r *connect.Request[number]) (*connect.Response[number], error) {
		if r.Msg.GetValue() != 0 {
			return connect.NewResponse(wrapperspb.Int64(served.Swap(0))), nil
		}
		answer := connect.NewResponse(&number{})
		if served.Add(1)%100 == 0 {
			answer.Header().Set("Connection", "close")
		}
		return answer, nil
	})
	go (&http.Server{Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}).ServeTLS(l, "", "")
	roots := x509.NewCertPool()
	roots.AddCert(must(x509.ParseCertificate(der)))
	c := connect.NewClient[number, number](&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}, "https://"+at+"/e.Count/Up")
	var failed atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				if _, err := c.CallUnary(context.Background(), connect.NewRequest(&number{})); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	fmt.Println("connect-go: lost", failed.Load(), "served", served.Swap(0))
	fmt.Println("at", at)
	select {}
}
EOM
cat > main.cjs <<'EOM'
'use strict';
const { readFileSync } = require('node:fs');
const { Agent, fetch } = require('undici');
const grpc = require('@grpc/grpc-js');
const web = require('@connectrpc/connect-web');
const node = require('@connectrpc/connect-node');
const { createClient, Code } = require('@connectrpc/connect');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');
const at = process.argv[2], ca = readFileSync('ca.crt'), baseUrl = 'https://' + at;
const type = '.google.protobuf.Int64Value';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'Count', method: [{ name: 'Up', inputType: type, outputType: type }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.Count');
const direct = createClient(service, node.createConnectTransport({ baseUrl, httpVersion: '1.1', nodeOptions: { ca } }));
const raw = (b) => b;

const ways = { // each a call, which fails with what is said of it
  'undici over HTTP/2': () => {
    const dispatcher = new Agent({ connect: { ca } });
    return () => fetch(baseUrl + '/e.Count/Up', { dispatcher, method: 'POST', headers: { 'content-type': 'application/json' }, body: '"0"' })
      .then((r) => r.text(), (e) => { throw `${e.message}: ${e.cause?.code}, ${e.cause?.message}`; });
  },
  'undici over HTTP/1.1': () => {
    const dispatcher = new Agent({ connect: { ca }, allowH2: false });
    return () => fetch(baseUrl + '/e.Count/Up', { dispatcher, method: 'POST', headers: { 'content-type': 'application/json' }, body: '"0"' }).then((r) => r.text());
  },
  'connect-web on undici over HTTP/2': () => {
    const dispatcher = new Agent({ connect: { ca } });
    const client = createClient(service, web.createConnectTransport({ baseUrl, fetch: (url, init) => fetch(url, { ...init, dispatcher }) }));
    return () => client.up({}).catch((e) => { throw Code[e.code]; });
  },
  'grpc-js': () => {
    const client = new grpc.Client(at, grpc.credentials.createSsl(ca));
    return () => new Promise((done, failed) => client.makeUnaryRequest('/e.Count/Up', raw, raw, Buffer.alloc(0), (e) => (e ? failed(grpc.status[e.code]) : done())));
  },
};
(async () => {
  for (const [name, make] of Object.entries(ways)) {
    const call = make();
    let lost = 0, made = 0, served = 0;
    const said = new Set();
    // Whether calls are on their way when a GOAWAY comes is a matter of time: as many rounds as it takes, 20 at most.
    for (let round = 0; round < (name.includes('HTTP/2') ? 20 : 1) && lost === 0; round++) {
      let left = 1000;
      await Promise.all(Array.from({ length: 50 }, async () => {
        while (left-- > 0) await call().catch((e) => { lost++; said.add(String(e)); });
      }));
      made += 1000;
      served += Number((await direct.up({ value: 1n })).value);
    }
    console.error(`${name}: made ${made}, lost ${lost}, served ${served}`);
    console.log(`${name}: ${lost ? 'lost some, the service saw the others' : 'lost none'}${lost + served === made ? '' : ' (not so)'}${[...said].sort().map((s) => ', ' + s).join('')}`);
  }
  process.exit();
})();
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect
node_modules/.bin/node -p '"node " + process.version'
for package in undici @connectrpc/connect-web @connectrpc/connect-node @grpc/grpc-js; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local go build -o finding .
./finding > go.seen &
until grep -q ^at go.seen; do kill -0 $! || exit 1; sleep 0.1; done
{ grep lost go.seen; timeout 90 node_modules/.bin/node main.cjs "$(sed -n 's/^at //p' go.seen)"; } | tee seen
cat > want <<'EOM'
connect-go: lost 0 served 1000
undici over HTTP/2: lost some, the service saw the others, fetch failed: UND_ERR_INFO, HTTP/2: "GOAWAY" frame received with code 0
undici over HTTP/1.1: lost none
connect-web on undici over HTTP/2: lost some, the service saw the others, Unknown
grpc-js: lost none
EOM
cmp -s seen want || { echo CHANGED; exit 1; }
