#!/usr/bin/env bash
# Guess: a call that fails because one side does not take the other's certificate, as in the minutes of a rotation, has one code for each client of gRPC and Connect: unavailable, as
# for a service that cannot be reached, so that a caller that tries again gets through once the certificate is there. No handler saw the call.
# Seen: @connectrpc/connect-node 2.3.0 on Node 22.23.3 says internal, over HTTP/2 and HTTP/1.1, in Connect, gRPC and gRPC-Web: where the service demands the caller's
# certificate and it is expired, of another CA or missing, and where the service's own is expired, of another CA or has another name. @grpc/grpc-js 1.14.7 and
# google.golang.org/grpc v1.85.0 say unavailable for all six, and connectrpc.com/connect v1.21.1 for those of the service's certificate (for the caller's own
# it is unavailable or canceled, as it turns out whether the refusal or the end of the connection is read first). The service is net/http of Go 1.26 with TLS 1.3.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@22.23.3 @grpc/grpc-js@1.14.7 @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
cat > go.mod <<'EOM'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/grpc v1.85.0
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
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

type empty = emptypb.Empty

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(name string) authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-3 * time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return authority{must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)))), key}
}

// issue returns a certificate, and writes it and its key to files.
func (a authority) issue(file, name string, until time.Duration) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	t := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(until), DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der := must(x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key))
	write(file+".crt", "CERTIFICATE", der)
	write(file+".key", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
	return must(tls.LoadX509KeyPair(file+".crt", file+".key"))
}

func write(file, label string, der []byte) {
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}), 0o600); err != nil {
		panic(err)
	}
}

func main() {
	ca, other := newAuthority("CA"), newAuthority("another CA")
	write("ca.crt", "CERTIFICATE", ca.cert.Raw)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	good := ca.issue("good", "localhost", time.Hour)
	services := []struct {
		name string
		cert tls.Certificate
	}{
		{"good", good}, {"expired", ca.issue("s1", "localhost", -time.Hour)}, {"another CA", other.issue("s2", "localhost", time.Hour)}, {"another name", ca.issue("s3", "elsewhere.example", time.Hour)},
	}
	callers := map[string]*tls.Certificate{"good": &good, "missing": {}}
	expired, foreign := ca.issue("expired", "caller", -time.Hour), other.issue("foreign", "caller", time.Hour)
	callers["expired"], callers["another CA"] = &expired, &foreign
	handler := connect.NewUnaryHandler("/e.S/Do", func(context.Context, *connect.Request[empty]) (*connect.Response[empty], error) {
		return connect.NewResponse(&empty{}), nil
	})
	list := must(os.Create("services.part"))
	for _, s := range services {
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{s.cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS13}}
		go server.ServeTLS(l, "", "")
		at := strings.Replace(l.Addr().String(), "127.0.0.1", "localhost", 1)
		fmt.Fprintf(list, "%s|%s\n", s.name, at)
		for name, cert := range callers {
			if s.name != "good" && name != "good" {
				continue
			}
			c := &tls.Config{RootCAs: pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }}
			cc := must(grpc.NewClient(at, grpc.WithTransportCredentials(credentials.NewTLS(c.Clone()))))
			fmt.Printf("service's %s, caller's %s: grpc-go: %v\n", s.name, name, status.Code(cc.Invoke(context.Background(), "/e.S/Do", &empty{}, &empty{})))
			if name != "good" {
				continue
			}
			hc := &http.Client{Transport: &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}}
			said := "OK"
			if _, err := connect.NewClient[empty, empty](hc, "https://"+at+"/e.S/Do").CallUnary(context.Background(), connect.NewRequest(&empty{})); err != nil {
				said = connect.CodeOf(err).String()
			}
			fmt.Printf("service's %s, caller's %s: connect-go: %s\n", s.name, name, said)
		}
	}
	if err := os.Rename("services.part", "services"); err != nil {
		panic(err)
	}
	select {}
}
EOM
cat > main.cjs <<'EOM'
'use strict';
const { readFileSync } = require('node:fs');
const grpc = require('@grpc/grpc-js');
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport } = require('@connectrpc/connect-node');
const { createClient, Code } = require('@connectrpc/connect');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_empty } = require('@bufbuild/protobuf/wkt');
const type = '.google.protobuf.Empty';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/empty.proto'],
  service: [{ name: 'S', method: [{ name: 'Do', inputType: type, outputType: type }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_empty.proto, file] })).getService('e.S');
const raw = (b) => b;
const ca = readFileSync('ca.crt');
const callers = { good: 'good', missing: null, expired: 'expired', 'another CA': 'foreign' };
const transports = [['Connect', createConnectTransport, '2'], ['Connect over HTTP/1.1', createConnectTransport, '1.1'], ['gRPC', createGrpcTransport, '2'], ['gRPC-Web', createGrpcWebTransport, '2']];
(async () => {
  for (const line of readFileSync('services', 'utf8').trim().split('\n')) {
    const [name, at] = line.split('|');
    for (const [caller, from] of Object.entries(callers)) {
      if (name !== 'good' && caller !== 'good') continue;
      const own = from ? { cert: readFileSync(`${from}.crt`), key: readFileSync(`${from}.key`) } : {};
      const say = (by, said) => console.log(`service's ${name}, caller's ${caller}: ${by}: ${said}`);
      for (const [protocol, transport, httpVersion] of transports) {
        const client = createClient(service, transport({ baseUrl: `https://${at}`, httpVersion, nodeOptions: { ca, ...own } }));
        say(`connect-node in ${protocol}`, await client.do({}).then(() => 'OK', (e) => Code[e.code]));
      }
      const client = new grpc.Client(at, grpc.credentials.createSsl(ca, own.key, own.cert));
      say('grpc-js', await new Promise((done) => client.makeUnaryRequest('/e.S/Do', raw, raw, Buffer.alloc(0), (e) => done(grpc.status[e?.code ?? 0]))));
      client.close();
    }
  }
  process.exit();
})();
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect google.golang.org/grpc
node_modules/.bin/node -p '"node " + process.version'
for package in @grpc/grpc-js @connectrpc/connect-node; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local go build -o finding .
./finding > go.seen &
until [ -s services ]; do sleep 0.1; done
NODE_NO_WARNINGS=1 timeout 90 node_modules/.bin/node main.cjs > node.seen
LC_ALL=C sort go.seen node.seen | tee seen
LC_ALL=C sort > want <<EOM
$(for who in 'connect-go' 'connect-node in Connect' 'connect-node in Connect over HTTP/1.1' 'connect-node in gRPC' 'connect-node in gRPC-Web' 'grpc-go' 'grpc-js'; do
  echo "service's good, caller's good: $who: OK"
done)
$(for case in "service's expired, caller's good" "service's another CA, caller's good" "service's another name, caller's good" "service's good, caller's expired" "service's good, caller's another CA" "service's good, caller's missing"; do
  for protocol in 'Connect' 'Connect over HTTP/1.1' 'gRPC' 'gRPC-Web'; do echo "$case: connect-node in $protocol: Internal"; done
  echo "$case: grpc-js: UNAVAILABLE"
  echo "$case: grpc-go: Unavailable"
  [[ $case = "service's good"* ]] || echo "$case: connect-go: unavailable"
done)
EOM
cmp -s seen want || { diff seen want || true; echo CHANGED; exit 1; }
