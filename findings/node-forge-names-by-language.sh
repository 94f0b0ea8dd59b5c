#!/usr/bin/env bash
# Guess: a certificate or a request for one that a plugin in Node makes with node-forge is read by a host in Go whatever the name in it, as Node's own crypto and OpenSSL read it.
# Seen: node-forge 1.4.3 (npm) writes each text of a subject as a PrintableString, which has neither "_" nor "@" nor "#" nor anything beyond ASCII. Go 1.26 (crypto/x509) refuses the
# whole certificate, and the request, for a common name such as my_plugin: "invalid RDNSequence: invalid attribute value: invalid PrintableString". Node 20 and OpenSSL 3.0 take them. With
# valueTagClass: forge.asn1.Type.UTF8 beside the value it is written as UTF-8, and Go reads it.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node-forge@1.4.3 > /dev/null 2>&1
cat > main.cjs <<'EOT'
const { X509Certificate } = require('node:crypto');
const forge = require('node-forge');

const keys = forge.pki.rsa.generateKeyPair(2048);
const made = [];
for (const [name, utf8] of [['my-plugin'], ['my_plugin'], ['plugin@example.org'], ['plugin #1'], ['größe'], ['my_plugin', true], ['größe', true]]) {
  const subject = [{ name: 'commonName', value: name, ...(utf8 && { valueTagClass: forge.asn1.Type.UTF8 }) }];
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = keys.publicKey;
  certificate.validity.notAfter = new Date(Date.now() + 86400000);
  certificate.setSubject(subject);
  certificate.setIssuer(subject);
  certificate.sign(keys.privateKey, forge.md.sha256.create());
  const request = forge.pki.createCertificationRequest();
  request.publicKey = keys.publicKey;
  request.setSubject(subject);
  request.sign(keys.privateKey, forge.md.sha256.create());
  const pem = forge.pki.certificateToPem(certificate);
  console.log(`Node, ${name}${utf8 ? ' as UTF8' : ''}: ${new X509Certificate(pem).subject}`);
  made.push({ name: `${name}${utf8 ? ' as UTF8' : ''}`, certificate: pem, request: forge.pki.certificationRequestToPem(request) });
}
require('node:fs').writeFileSync('made.json', JSON.stringify(made));
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0
EOT
cat > main.go <<'EOT'
package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	data, err := os.ReadFile("made.json")
	if err != nil {
		panic(err)
	}
	var made []struct{ Name, Certificate, Request string }
	if err := json.Unmarshal(data, &made); err != nil {
		panic(err)
	}
	for _, m := range made {
		block, _ := pem.Decode([]byte(m.Certificate))
		certificate, err := x509.ParseCertificate(block.Bytes)
		seen := fmt.Sprint("refused, ", err)
		if err == nil {
			seen = certificate.Subject.String()
		}
		block, _ = pem.Decode([]byte(m.Request))
		_, err = x509.ParseCertificateRequest(block.Bytes)
		fmt.Printf("Go, %s: %s; request read %t\n", m.Name, seen, err == nil)

		openssl := exec.Command("openssl", "x509", "-noout", "-checkend", "0")
		openssl.Stdin = strings.NewReader(m.Certificate)
		fmt.Printf("  OpenSSL reads it: %t\n", openssl.Run() == nil)
	}
}
EOT
go version
node -p '"node-forge " + require("./node_modules/node-forge/package.json").version + ", node " + process.version'
{
  timeout 120 node main.cjs
  GOTOOLCHAIN=local timeout 120 go run .
} | tee seen
cat > want <<'EOT'
Node, my-plugin: CN=my-plugin
Node, my_plugin: CN=my_plugin
Node, plugin@example.org: CN=plugin@example.org
Node, plugin #1: CN=plugin #1
Node, größe: CN=größe
Node, my_plugin as UTF8: CN=my_plugin
Node, größe as UTF8: CN=größe
Go, my-plugin: CN=my-plugin; request read true
  OpenSSL reads it: true
Go, my_plugin: refused, x509: invalid RDNSequence: invalid attribute value: invalid PrintableString; request read false
  OpenSSL reads it: true
Go, plugin@example.org: refused, x509: invalid RDNSequence: invalid attribute value: invalid PrintableString; request read false
  OpenSSL reads it: true
Go, plugin #1: refused, x509: invalid RDNSequence: invalid attribute value: invalid PrintableString; request read false
  OpenSSL reads it: true
Go, größe: refused, x509: invalid RDNSequence: invalid attribute value: invalid PrintableString; request read false
  OpenSSL reads it: true
Go, my_plugin as UTF8: CN=my_plugin; request read true
  OpenSSL reads it: true
Go, größe as UTF8: CN=größe; request read true
  OpenSSL reads it: true
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
