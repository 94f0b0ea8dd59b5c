#!/usr/bin/env bash
# Guess: behind a sidecar that ends TLS and passes bytes on to a service in h2c, as stunnel does, clients whose transport is set to HTTP/2 alone speak
# HTTP/2, or say at the handshake that there is none: stunnel chooses no protocol by ALPN.
# Seen: with stunnel 5.68 (Debian 12) a client of connectrpc.com/connect v1.21.1 on http.Transport of Go 1.26 with Protocols of HTTP2 alone speaks HTTP/1.1
# without a word, as with ForceAttemptHTTP2. Unary calls succeed, even in gRPC, and a bidirectional stream fails with unknown, "HTTP status 505 HTTP
# Version Not Supported", so that it shows late, and at the service. Where the service is in h2c alone each call is unavailable, as if nobody were there.
# google.golang.org/grpc v1.85.0 refuses the handshake, "missing selected ALPN property". @connectrpc/connect-node 2.3.0 and @grpc/grpc-js 1.14.7 go
# without ALPN and speak HTTP/2, as was meant.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
apt-get download stunnel4=3:5.68-2+deb12u1 libwrap0 > /dev/null 2>&1
for package in *.deb; do dpkg-deb -x "$package" root; done
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 @grpc/grpc-js@1.14.7 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// service notes the version of HTTP in which it is asked.
func service(asked chan<- string, http1 bool) net.Listener {
	mux := http.NewServeMux()
	mux.Handle("/e.E/One", connect.NewUnaryHandler("/e.E/One", func(context.Context, *connect.Request[empty]) (*connect.Response[empty], error) {
		return connect.NewResponse(&empty{}), nil
	}))
	mux.Handle("/e.E/Both", connect.NewBidiStreamHandler("/e.E/Both", func(context.Context, *connect.BidiStream[empty, empty]) error { return nil }))
	var protocols http.Protocols
	protocols.SetHTTP1(http1)
	protocols.SetUnencryptedHTTP2(true)
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	go (&http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.Proto:
		default:
		}
		mux.ServeHTTP(w, r)
	})}).Serve(listener)
	return listener
}

// certificate writes one for localhost, with its key, and returns who trusts it.
func certificate(file string) *x509.CertPool {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(must(x509.ParseCertificate(der)))
	return pool
}

// stunnel ends TLS for a service, and returns its own address.
func stunnel(name string, service net.Listener) (string, func()) {
	free := must(net.Listen("tcp", "127.0.0.1:0"))
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	config := fmt.Sprintf("foreground = yes\npid =\n[service]\naccept = 127.0.0.1:%d\nconnect = %s\ncert = %s\n", port, service.Addr(), must(filepath.Abs("cert.pem")))
	if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
		panic(err)
	}
	cmd := exec.Command("root/usr/bin/stunnel4", name)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+must(filepath.Abs("root/usr/lib/x86_64-linux-gnu")))
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	address := fmt.Sprintf("localhost:%d", port)
	for range 100 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return address, func() { cmd.Process.Kill(); cmd.Wait() }
}

func outcome(err error) string {
	var coded *connect.Error
	switch {
	case err == nil:
		return "answered"
	case errors.As(err, &coded):
		if strings.Contains(coded.Message(), "HTTP status 505") {
			return coded.Code().String() + ", HTTP status 505"
		}
		return coded.Code().String()
	case strings.Contains(err.Error(), "missing selected ALPN property"):
		return status.Code(err).String() + ", missing selected ALPN property"
	default:
		return err.Error()
	}
}

func unary(transport *http.Transport, address string, options ...connect.ClientOption) error {
	_, err := connect.NewClient[empty, empty](&http.Client{Transport: transport, Timeout: 20 * time.Second}, "https://"+address+"/e.E/One", options...).CallUnary(context.Background(), connect.NewRequest(&empty{}))
	return err
}

func main() {
	asked := make(chan string, 1)
	trust := &tls.Config{RootCAs: certificate("cert.pem")}
	address, stop := stunnel("both.conf", service(asked, true))
	defer stop()
	only, stopOnly := stunnel("only.conf", service(asked, false))
	defer stopOnly()
	var http2 http.Protocols
	http2.SetHTTP2(true)
	alone := &http.Transport{TLSClientConfig: trust.Clone(), Protocols: &http2}
	forced := &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: true}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()

	var seen []string
	say := func(what, end string) {
		select {
		case version := <-asked:
			end += ", over " + version
		default:
		}
		fmt.Println(what + ": " + end)
		seen = append(seen, what+": "+end)
	}
	say("connect-go, HTTP2 alone", outcome(unary(alone, address)))
	say("connect-go in gRPC, HTTP2 alone", outcome(unary(alone, address, connect.WithGRPC())))
	stream := connect.NewClient[empty, empty](&http.Client{Transport: alone}, "https://"+address+"/e.E/Both", connect.WithGRPC()).CallBidiStream(ctx)
	stream.Send(nil)
	_, err := stream.Receive()
	say("connect-go in gRPC, HTTP2 alone, both stream", outcome(err))
	say("connect-go, ForceAttemptHTTP2", outcome(unary(forced, address)))
	say("connect-go, HTTP2 alone, service h2c alone", outcome(unary(alone, only)))
	conn := must(grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(trust))))
	say("gRPC-Go", outcome(conn.Invoke(ctx, "/e.E/One", &empty{}, &empty{})))
	for _, client := range []string{"connect-node", "grpc-js"} {
		out := must(exec.CommandContext(ctx, "node", "main.mjs", client, address).Output())
		say(client, strings.TrimSpace(string(out)))
	}

	if !slices.Equal(seen, []string{
		"connect-go, HTTP2 alone: answered, over HTTP/1.1",
		"connect-go in gRPC, HTTP2 alone: answered, over HTTP/1.1",
		"connect-go in gRPC, HTTP2 alone, both stream: unknown, HTTP status 505, over HTTP/1.1",
		"connect-go, ForceAttemptHTTP2: answered, over HTTP/1.1",
		"connect-go, HTTP2 alone, service h2c alone: unavailable",
		"gRPC-Go: Unavailable, missing selected ALPN property",
		"connect-node: answered, over HTTP/2.0",
		"grpc-js: answered, over HTTP/2.0",
	}) {
		fmt.Println("CHANGED")
		stop()
		stopOnly()
		os.Exit(1)
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_empty } from '@bufbuild/protobuf/wkt';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import grpc from '@grpc/grpc-js';

const [client, address] = process.argv.slice(2);
const ca = readFileSync('cert.pem');
const calls = {
  'connect-node': async () => {
    const type = '.google.protobuf.Empty';
    const file = create(FileDescriptorProtoSchema, {
      name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/empty.proto'],
      service: [{ name: 'E', method: [{ name: 'One', inputType: type, outputType: type }] }],
    });
    const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_empty.proto, file] })).getService('e.E');
    await createClient(service, createGrpcTransport({ baseUrl: `https://${address}`, nodeOptions: { ca } })).one({});
  },
  'grpc-js': () => new Promise((resolve, reject) => {
    const channel = new grpc.Client(address, grpc.credentials.createSsl(ca));
    channel.makeUnaryRequest('/e.E/One', (bytes) => bytes, (bytes) => bytes, Buffer.alloc(0), (error) => error ? reject(error) : resolve());
  }),
};
try {
  await calls[client]();
  console.log('answered');
} catch (error) {
  console.log(error.message);
}
process.exit(0);
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version
go list -m connectrpc.com/connect google.golang.org/grpc
ls stunnel4*.deb | sed 's/%3a/:/'
for package in @connectrpc/connect-node @grpc/grpc-js; do
  node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"
done
GOTOOLCHAIN=local go build -o main . && timeout 120 ./main
