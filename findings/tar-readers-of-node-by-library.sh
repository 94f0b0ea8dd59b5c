#!/usr/bin/env bash
# Guess: an archive that Go's archive/tar writes, as a host packs its plugins, is read in Node as it was written: names, links, times and owners stand in the fields that POSIX (ustar,
# pax) and GNU tar have for them.
# Seen: tar 7.5.23 (npm) reads all of it, modern-tar 0.8.6 what is of ustar and pax. (1) tar-stream 3.2.2 leaves uid and mtime of a pax header aside, so that the owner 4000000 is 0 and a time before 1970, or in
# 2300, is 1970; for GNU's form of a time before 1970 it is a second late. (2) nanotar 0.3.0 leaves ustar's prefix aside, so that a plugin in a folder with a long name is in none, reads uid and
# gid as decimal (1000 is 1750), has no target of a link, and where that is long, takes it for the link's name.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save tar@7.5.23 tar-stream@3.2.2 modern-tar@0.8.6 nanotar@0.3.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0
EOT
cat > main.go <<'EOT'
package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"strings"
	"time"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func write(name string, format tar.Format, headers ...tar.Header) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		body := ""
		if h.Typeflag == 0 {
			body = "content"
		}
		h.Format, h.Mode, h.Size = format, 0o644, int64(len(body))
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_800_000_000, 0)
		}
		must(w.WriteHeader(&h))
		_, err := io.WriteString(w, body)
		must(err)
	}
	must(w.Close())
	must(os.WriteFile(name+".tar", b.Bytes(), 0o644))
}

func main() {
	long := strings.Repeat("d", 99) + "/plugin"
	target := strings.Repeat("d", 90) + "/" + strings.Repeat("f", 180)
	write("1-plain", tar.FormatUSTAR, tar.Header{Name: "plugin"})
	write("2-prefix", tar.FormatUSTAR, tar.Header{Name: long})
	write("3-owner", tar.FormatUSTAR, tar.Header{Name: "plugin", Uid: 1000, Gid: 100})
	write("4-link", tar.FormatUSTAR, tar.Header{Name: "b", Linkname: "plugin", Typeflag: tar.TypeSymlink})
	write("5-pax-owner", tar.FormatPAX, tar.Header{Name: "plugin", Uid: 4_000_000})
	write("6-pax-1969", tar.FormatPAX, tar.Header{Name: "plugin", ModTime: time.Unix(-100, 0)})
	write("7-pax-link", tar.FormatPAX, tar.Header{Name: "b", Linkname: target, Typeflag: tar.TypeSymlink})
	write("8-gnu-1969", tar.FormatGNU, tar.Header{Name: "plugin", ModTime: time.Unix(-100, 0)})
	write("9-pax-2300", tar.FormatPAX, tar.Header{Name: "plugin", ModTime: time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)})
}
EOT
cat > main.mjs <<'EOT'
import fs from 'node:fs';
import { Readable } from 'node:stream';
import { parseTar } from 'nanotar';
import { unpackTar } from 'modern-tar';
import { extract } from 'tar-stream';
import { Parser } from 'tar';

const short = (text) => (text.length > 20 ? `<${text.length}>` : text);
const line = (name, link, uid, gid, time) => `${short(name)}${link ? `>${short(link)}` : ''} ${uid}:${gid} ${time}`;
const libraries = {
  tar: (b) => new Promise((resolve, reject) => {
    const out = [];
    const parser = new Parser({ strict: true });
    parser.on('entry', (e) => { out.push(line(e.path, e.linkpath, e.uid, e.gid, e.mtime / 1000)); e.resume(); }).on('end', () => resolve(out)).on('error', reject);
    parser.end(b);
  }),
  'tar-stream': (b) => new Promise((resolve, reject) => {
    const out = [];
    const e = extract();
    e.on('entry', (h, s, next) => { out.push(line(h.name, h.linkname, h.uid, h.gid, h.mtime / 1000)); s.on('end', next).resume(); }).on('finish', () => resolve(out)).on('error', reject);
    Readable.from([b]).pipe(e);
  }),
  'modern-tar': async (b) => (await unpackTar(new Uint8Array(b))).map(({ header: h }) => line(h.name, h.linkname, h.uid, h.gid, h.mtime / 1000)),
  nanotar: (b) => parseTar(new Uint8Array(b)).map((f) => line(f.name, f.attrs.linkname, f.attrs.uid, f.attrs.gid, f.attrs.mtime)),
};
// GNU's form of a time is not for all of them to read.
const leaves = { '8-gnu-1969.tar': ['modern-tar', 'nanotar'] };
for (const file of fs.readdirSync('.').filter((f) => f.endsWith('.tar')).sort()) {
  const b = fs.readFileSync(file);
  for (const [name, read] of Object.entries(libraries)) if (!leaves[file]?.includes(name)) console.log(`${file}, ${name}: ${(await read(b)).join(' | ')}`);
}
EOT
cat > want <<'EOT'
1-plain.tar, tar: plugin 0:0 1800000000
1-plain.tar, tar-stream: plugin 0:0 1800000000
1-plain.tar, modern-tar: plugin 0:0 1800000000
1-plain.tar, nanotar: plugin 0:0 1800000000
2-prefix.tar, tar: <106> 0:0 1800000000
2-prefix.tar, tar-stream: <106> 0:0 1800000000
2-prefix.tar, modern-tar: <106> 0:0 1800000000
2-prefix.tar, nanotar: plugin 0:0 1800000000
3-owner.tar, tar: plugin 1000:100 1800000000
3-owner.tar, tar-stream: plugin 1000:100 1800000000
3-owner.tar, modern-tar: plugin 1000:100 1800000000
3-owner.tar, nanotar: plugin 1750:144 1800000000
4-link.tar, tar: b>plugin 0:0 1800000000
4-link.tar, tar-stream: b>plugin 0:0 1800000000
4-link.tar, modern-tar: b>plugin 0:0 1800000000
4-link.tar, nanotar: b 0:0 1800000000
5-pax-owner.tar, tar: plugin 4000000:0 1800000000
5-pax-owner.tar, tar-stream: plugin 0:0 1800000000
5-pax-owner.tar, modern-tar: plugin 4000000:0 1800000000
5-pax-owner.tar, nanotar: plugin 0:0 1800000000
6-pax-1969.tar, tar: plugin 0:0 -100
6-pax-1969.tar, tar-stream: plugin 0:0 0
6-pax-1969.tar, modern-tar: plugin 0:0 -100
6-pax-1969.tar, nanotar: plugin 0:0 0
7-pax-link.tar, tar: b><271> 0:0 1800000000
7-pax-link.tar, tar-stream: b><271> 0:0 1800000000
7-pax-link.tar, modern-tar: b><271> 0:0 1800000000
7-pax-link.tar, nanotar: <271> 0:0 1800000000
8-gnu-1969.tar, tar: plugin 0:0 -100
8-gnu-1969.tar, tar-stream: plugin 0:0 -99
9-pax-2300.tar, tar: plugin 0:0 10413792000
9-pax-2300.tar, tar-stream: plugin 0:0 0
9-pax-2300.tar, modern-tar: plugin 0:0 10413792000
9-pax-2300.tar, nanotar: plugin 0:0 0
EOT
for p in tar tar-stream modern-tar nanotar; do node -p '"'$p' " + JSON.parse(require("fs").readFileSync("node_modules/'$p'/package.json")).version'; done
GOTOOLCHAIN=local go run .
timeout 60 node main.mjs | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
