#!/usr/bin/env bash
# Guess: a bill of materials in CycloneDX that one tool wrote as JSON and the Go library reads is written by it as XML, and back, without loss: JSON and XML
# are two forms of the same document, and what cannot be written is an error.
# Seen: github.com/CycloneDX/cyclonedx-go v0.12.0 writes what @cyclonedx/cyclonedx-library 10.3.0 (npm) made as JSON of CycloneDX 1.6 as XML with xmlns="",
# without an error: it is no CycloneDX any more, and its version is lost, since that is the namespace's. Its own decoder reads it, as version 0, and then it
# cannot be written as JSON, "json format is not supported for specification versions lower than 1.2". EncodeVersion with the version that was read, in place
# of Encode, gives the namespace. The other way round, from XML to JSON, the document has "bomFormat": "" with either, where the schema wants CycloneDX, until
# the caller sets BOMFormat. From JSON to JSON all is well.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @cyclonedx/cyclonedx-library@10.3.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/CycloneDX/cyclonedx-go v0.12.0
EOT
cat > main.mjs <<'EOT'
import { Enums, Models, Serialize, Spec } from '@cyclonedx/cyclonedx-library';

const bom = new Models.Bom({ version: 1 });
bom.components.add(new Models.Component(Enums.ComponentType.Library, 'plugin', { version: '1.0.0', bomRef: 'plugin' }));
console.log(new Serialize.JsonSerializer(new Serialize.JSON.Normalize.Factory(Spec.Spec1dot6)).serialize(bom));
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func read(text []byte, format cdx.BOMFileFormat) *cdx.BOM {
	bom := new(cdx.BOM)
	if err := cdx.NewBOMDecoder(bytes.NewReader(text), format).Decode(bom); err != nil {
		panic(err)
	}
	return bom
}

// write writes with Encode, or with EncodeVersion if a version is given.
func write(bom *cdx.BOM, format cdx.BOMFileFormat, version cdx.SpecVersion) ([]byte, error) {
	var out bytes.Buffer
	encoder := cdx.NewBOMEncoder(&out, format)
	var err error
	if version == 0 {
		err = encoder.Encode(bom)
	} else {
		err = encoder.EncodeVersion(bom, version)
	}
	return out.Bytes(), err
}

func main() {
	text, err := os.ReadFile("bom.json")
	if err != nil {
		panic(err)
	}
	fromNode := read(text, cdx.BOMFileFormatJSON)
	fmt.Println("from Node: version", fromNode.SpecVersion)
	same, err := write(fromNode, cdx.BOMFileFormatJSON, 0)
	fmt.Println("JSON again:", head(same), err)
	for _, version := range []cdx.SpecVersion{0, fromNode.SpecVersion} {
		name := "EncodeVersion"
		if version == 0 {
			name = "Encode"
		}
		xml, err := write(fromNode, cdx.BOMFileFormatXML, version)
		fmt.Printf("%s as XML: %s, %v\n", name, regexp.MustCompile(`xmlns="[^"]*"`).Find(xml), err)
		back := read(xml, cdx.BOMFileFormatXML)
		fmt.Printf("%s, read back: %d component, version %s\n", name, len(*back.Components), back.SpecVersion)
		out, err := write(back, cdx.BOMFileFormatJSON, version)
		fmt.Println(name+" of that as JSON:", head(out), err)
	}
	xml, err := write(fromNode, cdx.BOMFileFormatXML, fromNode.SpecVersion)
	if err != nil {
		panic(err)
	}
	out, err := write(read(xml, cdx.BOMFileFormatXML), cdx.BOMFileFormatJSON, 0)
	fmt.Println("Encode of a good XML as JSON:", head(out), err)
}

// head is what says that a JSON text is CycloneDX, and which.
func head(text []byte) string {
	var bom struct{ BOMFormat, SpecVersion *string }
	if json.Unmarshal(text, &bom) != nil {
		return "nothing"
	}
	say := func(s *string) string {
		if s == nil {
			return "none"
		}
		return fmt.Sprintf("%q", *s)
	}
	return "bomFormat " + say(bom.BOMFormat) + " specVersion " + say(bom.SpecVersion)
}
EOT
cat > want <<'EOT'
from Node: version 1.6
JSON again: bomFormat "CycloneDX" specVersion "1.6" <nil>
Encode as XML: xmlns="", <nil>
Encode, read back: 1 component, version SpecVersion(0)
Encode of that as JSON: nothing json format is not supported for specification versions lower than 1.2
EncodeVersion as XML: xmlns="http://cyclonedx.org/schema/bom/1.6", <nil>
EncodeVersion, read back: 1 component, version 1.6
EncodeVersion of that as JSON: bomFormat "" specVersion "1.6" <nil>
Encode of a good XML as JSON: bomFormat "" specVersion "1.6" <nil>
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/CycloneDX/cyclonedx-go
node -p '"@cyclonedx/cyclonedx-library " + JSON.parse(require("fs").readFileSync("node_modules/@cyclonedx/cyclonedx-library/package.json")).version'
node main.mjs > bom.json
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
