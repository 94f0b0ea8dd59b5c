#!/usr/bin/env bash
# Guess: a .properties file that a plugin in Java writes (java.util.Properties.store) is read by a host in Go, and by its tools in Node, as it was: the class's documentation
# gives the format to the letter.
# Seen: of the file that Java 17 writes dot-properties 1.1.2 and properties-file 5.0.7 (npm) alone read all as it was. Java writes what is not ASCII as \u and escapes each :,
# =, #, ! and backslash of a value. github.com/magiconair/properties v1.18.13 reads each half of a character beyond 16 bits by itself, as U+FFFD. java-properties 1.0.2 (npm)
# throws a SyntaxError of JSON for the whole file as soon as one value has an escape that JSON has not, as the \: of a URL. properties-reader 3.0.1 leaves all backslashes
# where they are, in keys too, and trims. properties 1.2.1 makes numbers: the version 1.10 is 1.1, the id 007 is 7, and an empty value is null. magiconair also takes ${key} in
# a value for a reference, as its README says.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save properties@1.2.1 dot-properties@1.1.2 java-properties@1.0.2 properties-reader@3.0.1 properties-file@5.0.7 > /dev/null 2>&1
# What Properties.store of OpenJDK 17 writes for these values, but for its comment with the time.
cat > Write.java <<'EOT'
import java.io.FileOutputStream;
import java.util.Properties;

public class Write {
    public static void main(String[] args) throws Exception {
        Properties p = new Properties();
        p.setProperty("url", "https://localhost:8443/a?b=c");
        p.setProperty("path", "C:\\plugins");
        p.setProperty("two words", "x");
        p.setProperty("note", "  leads # and ! trails ");
        p.setProperty("lines", "a\nb");
        p.setProperty("euro", "\u20ac");
        p.setProperty("name", "\ud842\udfb7");
        p.setProperty("empty", "");
        p.setProperty("version", "1.10");
        p.setProperty("id", "007");
        p.store(new FileOutputStream("java.properties"), null);
    }
}
EOT
cat > java.properties <<'EOT'
empty=
euro=\u20AC
id=007
lines=a\nb
name=\uD842\uDFB7
note=\  leads \# and \! trails 
path=C\:\\plugins
two\ words=x
url=https\://localhost\:8443/a?b\=c
version=1.10
EOT
# Where there is a Java, it is asked; its order is that of a hash.
if command -v java > /dev/null; then
  mkdir written
  (cd written && java ../Write.java)
  grep -v '^#' written/java.properties | LC_ALL=C sort | cmp - java.properties
fi
cat > expected.json <<'EOT'
{"empty":"","euro":"\u20ac","id":"007","lines":"a\nb","name":"\ud842\udfb7","note":"  leads # and ! trails ","path":"C:\\plugins","two words":"x",
"url":"https://localhost:8443/a?b=c","version":"1.10"}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/magiconair/properties v1.18.13
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/magiconair/properties"
)

func main() {
	p := properties.MustLoadFile("java.properties", properties.ISO_8859_1)
	data, err := os.ReadFile("expected.json")
	if err != nil {
		panic(err)
	}
	var expected map[string]string
	if err := json.Unmarshal(data, &expected); err != nil {
		panic(err)
	}
	for _, key := range p.Keys() {
		if value := p.MustGet(key); value != expected[key] {
			fmt.Printf("magiconair %+q: %+q\n", key, value)
		}
	}
}
EOT
cat > main.cjs <<'EOT'
const { readFileSync } = require('node:fs');
const { propertiesReader } = require('properties-reader');

const file = 'java.properties';
const text = readFileSync(file, 'latin1');
const expected = JSON.parse(readFileSync('expected.json'));
const readJava = (of) => Object.fromEntries(of.getKeys().map((key) => [key, of.get(key)]));
const readers = {
  'dot-properties': require('dot-properties').parse(text),
  properties: require('properties').parse(text),
  'properties-file': require('properties-file').getProperties(text),
  'properties-reader': Object.fromEntries(propertiesReader({ sourceFile: file }).entries()),
};
try {
  readers['java-properties'] = readJava(require('java-properties').of(file));
} catch (e) {
  console.log(`java-properties: ${e.name}: ${e.message.replace(/ \(line.*/, '').replace(/ at position.*/, '')}`);
}
for (const [name, read] of Object.entries(readers)) {
  const differing = Object.keys(read).sort().filter((key) => read[key] !== expected[key]);
  console.log(`${name}: ${differing.length} of ${Object.keys(expected).length} differ`);
  for (const key of differing) console.log(`  ${key}: ${JSON.stringify(read[key])}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/magiconair/properties
for package in dot-properties java-properties properties properties-file properties-reader; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
{
  GOTOOLCHAIN=local timeout 120 go run .
  node main.cjs
} | tee seen
cat > want <<'EOT'
magiconair "name": "\ufffd\ufffd"
java-properties: SyntaxError: Bad escaped character in JSON
dot-properties: 0 of 10 differ
properties: 3 of 10 differ
  empty: null
  id: 7
  version: 1.1
properties-file: 0 of 10 differ
properties-reader: 7 of 10 differ
  euro: "\\u20AC"
  lines: "a\\nb"
  name: "\\uD842\\uDFB7"
  note: "\\  leads \\# and \\! trails"
  path: "C\\:\\\\plugins"
  two\ words: "x"
  url: "https\\://localhost\\:8443/a?b\\=c"
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
