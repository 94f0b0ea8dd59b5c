#!/usr/bin/env bash
# Guess: a file of two CA certificates makes a program trust both, or is refused as it is read, in Go, Node and Python alike: PEM is written down in RFC 7468.
# Seen: with crypto/x509 of Go 1.26 (CertPool.AppendCertsFromPEM), node:tls (Node 22.23.3, option ca) and Python 3's ssl (load_verify_locations) each of these files is read
# without an error by one of them, and trusts less. (1) With a byte order mark, as editors on Windows write one, Go loses the first certificate and says that all is well. (2)
# Where "cat" has joined two files of which the first has no line end, Go has neither, and says false; Node has neither and says nothing; Python refuses it. (3) "X509
# CERTIFICATE", a label that older tools write and RFC 7468 lets readers take for their sake, is passed over by Go, and taken by both others. (4) Where lines are indented, as in
# a file cut from YAML, the first is lost without a word in each. All three take comments, CRLF, blanks at line ends, lines of any length and a file without a line end.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@22.23.3 > /dev/null 2>&1
cat > go.mod <<'EOM'
module finding

go 1.26.0
EOM
cat > main.go <<'EOM'
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"time"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// service serves with a certificate of a CA of its own, and returns the CA's certificate and where it is.
func service(name string) ([]byte, string) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca := must(x509.CreateCertificate(rand.Reader, root, root, key.Public(), key))
	own := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	cert := tls.Certificate{Certificate: [][]byte{must(x509.CreateCertificate(rand.Reader, leaf, must(x509.ParseCertificate(ca)), own.Public(), key))}, PrivateKey: own}
	l := must(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}}))
	go func() {
		for {
			c := must(l.Accept())
			go func() {
				defer c.Close()
				io.WriteString(c, "hello")
				io.Copy(io.Discard, c)
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return ca, port
}

// trusted says which of the services a file makes a client trust.
func trusted(file []byte, ports []string) string {
	pool := x509.NewCertPool()
	said := fmt.Sprint(pool.AppendCertsFromPEM(file))
	for i, port := range ports {
		c, err := tls.Dial("tcp", "localhost:"+port, &tls.Config{RootCAs: pool})
		if err == nil {
			c.Close()
			said += fmt.Sprint(" ", i+1)
		}
	}
	return said
}

func main() {
	a, first := service("first")
	b, second := service("second")
	block := func(label string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	A, B := block("CERTIFICATE", a), block("CERTIFICATE", b)
	files := []struct{ name, text string }{
		{"plain", A + B},
		{"comments", "# ours\nsubject=CN=first\n" + A + "\n# theirs\n" + B},
		{"CRLF", strings.ReplaceAll(A+B, "\n", "\r\n")},
		{"blanks at line ends", strings.ReplaceAll(A+B, "\n", "  \n")},
		{"one long line", "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(a) + "\n-----END CERTIFICATE-----\n" + B},
		{"no line end", strings.TrimSuffix(A+B, "\n")},
		{"byte order mark", "\ufeff" + A + B},
		{"joined by cat", strings.TrimSuffix(A, "\n") + B},
		{"X509 CERTIFICATE", block("X509 CERTIFICATE", a) + B},
		{"indented", "  " + strings.ReplaceAll(strings.TrimSuffix(A, "\n"), "\n", "\n  ") + "\n" + B},
	}
	list := must(os.Create("files.part"))
	for i, f := range files {
		path := fmt.Sprintf("%d.pem", i)
		if err := os.WriteFile(path, []byte(f.text), 0o600); err != nil {
			panic(err)
		}
		fmt.Fprintf(list, "%s|%s|%s|%s\n", path, f.name, first, second)
		fmt.Printf("%s: Go: %s\n", f.name, trusted([]byte(f.text), []string{first, second}))
	}
	if err := os.Rename("files.part", "files"); err != nil {
		panic(err)
	}
	select {}
}
EOM
cat > main.cjs <<'EOM'
'use strict';
const tls = require('node:tls');
const { readFileSync } = require('node:fs');
(async () => {
  for (const line of readFileSync('files', 'utf8').trim().split('\n')) {
    const [path, name, ...ports] = line.split('|');
    let said = '';
    for (const [i, port] of ports.entries()) {
      const trusted = await new Promise((done) => {
        let c;
        try { c = tls.connect({ host: 'localhost', port: Number(port), ca: readFileSync(path) }, () => done(true)); } catch (e) { said = ' ' + e.message; done(false); return; }
        c.on('error', () => done(false));
        setTimeout(() => c.destroy(), 1000).unref();
      });
      if (trusted) said += ` ${i + 1}`;
    }
    console.log(`${name}: Node:${said || ' none'}`);
  }
  process.exit();
})();
EOM
cat > main.py <<'EOM'
import socket
import ssl

for line in open('files'):
    path, name, *ports = line.rstrip('\n').split('|')
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        print(f'{name}: Python: refused')
        continue
    said = ''
    for i, port in enumerate(ports):
        try:
            with socket.create_connection(('localhost', int(port))) as plain, context.wrap_socket(plain, server_hostname='localhost'):
                said += f' {i + 1}'
        except ssl.SSLError:
            pass
    print(f'{name}: Python:{said or " none"}')
EOM
go version
node_modules/.bin/node -p '"node " + process.version'
python3 --version
GOTOOLCHAIN=local go build -o finding .
./finding > go.seen &
until [ -s files ]; do kill -0 $! || exit 1; sleep 0.1; done
timeout 60 node_modules/.bin/node main.cjs > node.seen
timeout 60 python3 main.py > python.seen
LC_ALL=C sort go.seen node.seen python.seen | tee seen
cat > want <<'EOM'
CRLF: Go: true 1 2
CRLF: Node: 1 2
CRLF: Python: 1 2
X509 CERTIFICATE: Go: true 2
X509 CERTIFICATE: Node: 1 2
X509 CERTIFICATE: Python: 1 2
blanks at line ends: Go: true 1 2
blanks at line ends: Node: 1 2
blanks at line ends: Python: 1 2
byte order mark: Go: true 2
byte order mark: Node: 1 2
byte order mark: Python: 1 2
comments: Go: true 1 2
comments: Node: 1 2
comments: Python: 1 2
indented: Go: true 2
indented: Node: 2
indented: Python: 2
joined by cat: Go: false
joined by cat: Node: none
joined by cat: Python: refused
no line end: Go: true 1 2
no line end: Node: 1 2
no line end: Python: 1 2
one long line: Go: true 1 2
one long line: Node: 1 2
one long line: Python: 1 2
plain: Go: true 1 2
plain: Node: 1 2
plain: Python: 1 2
EOM
cmp -s seen want || { diff seen want || true; echo CHANGED; exit 1; }
