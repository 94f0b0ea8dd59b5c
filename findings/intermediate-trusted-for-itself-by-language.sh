#!/usr/bin/env bash
# Guess: a service whose PKI gave it an intermediate authority, and who gives its callers the certificate of that one as what they are to trust, is trusted
# by callers in each language: it sends a chain up to the authority that they have.
# Seen: Go 1.26 and curl trust what they are given for itself. Node 20.20.2 (node:tls, and with it @grpc/grpc-js 1.14.7) and Python's ssl 3.11 go on to
# look for the root, and refuse: UNABLE_TO_GET_ISSUER_CERT, "unable to get issuer certificate", as if the authority were unknown. With the root in the
# file, alone or beside the intermediate, all of them agree. What makes OpenSSL stop at the intermediate is VERIFY_X509_PARTIAL_CHAIN in Python, and
# allowPartialTrustChain in Node, where a client of node:tls has it, grpc-js has no place for it, and a server takes it without a word and without effect:
# with requestCert it refuses the client's certificate, whose chain ends at that intermediate.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@20.20.2 @grpc/grpc-js@1.14.7 > /dev/null 2>&1
export PATH="$dir/node_modules/node/bin:$PATH"
cat > main.js <<'EOT'
'use strict';
const tls = require('node:tls');
const { readFileSync } = require('node:fs');
const grpc = require('@grpc/grpc-js');
const [port, file] = process.argv.slice(2);
const ca = readFileSync(file), cert = readFileSync('chain.pem'), key = readFileSync('leaf.key');
const dial = (options) => new Promise((done) => {
  const socket = tls.connect({ host: '127.0.0.1', servername: 'localhost', ...options }, () => { done('trusted'); socket.destroy(); });
  socket.on('error', (error) => done(error.code));
});
const call = () => new Promise((done) => {
  const client = new grpc.Client('127.0.0.1:' + port, grpc.credentials.createSsl(ca), { 'grpc.ssl_target_name_override': 'localhost' });
  client.waitForReady(Date.now() + 5000, (error) => { done(error ? 'not ready' : 'trusted'); client.close(); });
});
const serve = () => new Promise((done) => {
  const server = tls.createServer({ ca, cert, key, requestCert: true, rejectUnauthorized: true, allowPartialTrustChain: true });
  server.on('secureConnection', () => done('trusted')).on('tlsClientError', () => done('refused'));
  server.listen(0, '127.0.0.1', () => {
    tls.connect({ host: '127.0.0.1', port: server.address().port, cert, key, rejectUnauthorized: false }).on('error', () => undefined);
  });
});
(async () => {
  console.log('node:tls', await dial({ port, ca }));
  console.log('node:tls, allowPartialTrustChain', await dial({ port, ca, allowPartialTrustChain: true }));
  console.log('grpc-js', await call());
  console.log('server of node:tls, allowPartialTrustChain', await serve());
  process.exit(0);
})();
EOT
cat > main.py <<'EOT'
import socket, ssl, sys
for name, flags in ("Python", 0), ("Python, VERIFY_X509_PARTIAL_CHAIN", ssl.VERIFY_X509_PARTIAL_CHAIN):
    context = ssl.create_default_context(cafile=sys.argv[2])
    context.verify_flags |= flags
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s, context.wrap_socket(s, server_hostname="localhost"):
            print(name, "trusted")
    except ssl.SSLCertVerificationError as e:
        print(name, e.verify_message)
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0
EOT
cat > main.go <<'EOT'
package main

import (
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
	"os/exec"
	"strings"
	"time"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type pair struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

var serial int64

func issue(name string, ca bool, by *pair) *pair {
	serial++
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	t := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if ca {
		t.KeyUsage = x509.KeyUsageCertSign
	} else {
		t.DNSNames, t.ExtKeyUsage = []string{"localhost"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	if by == nil {
		by = &pair{t, key}
	}
	return &pair{must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, t, by.Certificate, key.Public(), by.key)))), key}
}

func write(name, kind string, blocks ...[]byte) {
	var text []byte
	for _, b := range blocks {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})...)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		panic(err)
	}
}

func main() {
	root := issue("root", true, nil)
	middle := issue("plugins", true, root)
	leaf := issue("host", false, middle)
	write("root", "CERTIFICATE", root.Raw)
	write("intermediate", "CERTIFICATE", middle.Raw)
	write("both", "CERTIFICATE", middle.Raw, root.Raw)
	write("chain.pem", "CERTIFICATE", leaf.Raw, middle.Raw)
	write("leaf.key", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(leaf.key)))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{must(tls.LoadX509KeyPair("chain.pem", "leaf.key"))}}
	go server.ServeTLS(l, "", "")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	const trusted = `Go trusted
curl trusted
Python trusted
Python, VERIFY_X509_PARTIAL_CHAIN trusted
node:tls trusted
node:tls, allowPartialTrustChain trusted
grpc-js trusted
server of node:tls, allowPartialTrustChain trusted
`
	holds := true
	for _, file := range []string{"root", "both", "intermediate"} {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(must(os.ReadFile(file)))
		seen := "Go trusted\n"
		if c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "localhost"}); err != nil {
			seen = fmt.Sprintln("Go", err)
		} else {
			c.Close()
		}
		curl := "curl trusted\n"
		if out, err := exec.Command("curl", "-sS", "--resolve", "localhost:"+port+":127.0.0.1", "--cacert", file, "https://localhost:"+port+"/").CombinedOutput(); err != nil {
			curl = fmt.Sprintf("curl %s\n", out)
		}
		seen += curl + string(must(exec.Command("python3", "main.py", port, file).Output())) + string(must(exec.Command("node", "main.js", port, file).Output()))
		fmt.Printf("what is to be trusted is the %s:\n%s", file, seen)
		want := trusted
		if file == "intermediate" {
			want = strings.NewReplacer("Python trusted", "Python unable to get issuer certificate", "\nnode:tls trusted", "\nnode:tls UNABLE_TO_GET_ISSUER_CERT",
				"grpc-js trusted", "grpc-js not ready", "server of node:tls, allowPartialTrustChain trusted", "server of node:tls, allowPartialTrustChain refused").Replace(trusted)
		}
		holds = holds && seen == want
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
node -p "'node ' + process.versions.node + ', grpc-js ' + require('@grpc/grpc-js/package.json').version"
python3 --version
curl --version | head -n 1
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
