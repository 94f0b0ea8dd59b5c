#!/usr/bin/env bash
# Guess: a plugin's executable that is packed as .zip is one when it was unpacked: its mode is in the archive, where every packer that knows it writes it and every unpacker
# finds it.
# Seen: on both ways it is lost without a word. jszip 3.10.2 (npm) takes unixPermissions for a file, and writes it only where generateAsync has platform: 'UNIX'; in what it writes
# without, the file is 0666 for archive/zip of Go 1.26 and 0644 for extract-zip. Of an archive with 0755, as archive/zip (FileInfoHeader), yazl 3.3.1, archiver 8.0.0 and
# adm-zip 0.6.1 (addLocalFile) write it, extract-zip 2.0.1 makes 0755, and unzipper 0.12.5 (Open.file, extract) 0644. A host that starts what was unpacked gets
# "permission denied".
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save jszip@3.10.2 adm-zip@0.6.1 yazl@3.3.1 archiver@8.0.0 extract-zip@2.0.1 unzipper@0.12.5 > /dev/null 2>&1
umask 022
printf '#!/bin/sh\n' > plugin
chmod 755 plugin
cat > go.mod <<'EOT'
module finding

go 1.26.0
EOT
cat > main.go <<'EOT'
package main

import (
	"archive/zip"
	"fmt"
	"os"
)

func write() error {
	out, err := os.Create("go.zip")
	if err != nil {
		return err
	}
	defer out.Close()
	info, err := os.Stat("plugin")
	if err != nil {
		return err
	}
	header, err := zip.FileInfoHeader(info)
	if err != nil {
		return err
	}
	w := zip.NewWriter(out)
	if _, err := w.CreateHeader(header); err != nil {
		return err
	}
	return w.Close()
}

func main() {
	if len(os.Args) == 1 {
		if err := write(); err != nil {
			panic(err)
		}
		return
	}
	for _, name := range os.Args[1:] {
		r, err := zip.OpenReader(name)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s: archive/zip %o\n", name, r.File[0].Mode().Perm())
	}
}
EOT
cat > write.mjs <<'EOT'
import { createWriteStream, readFileSync, statSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import JSZip from 'jszip';
import AdmZip from 'adm-zip';
import yazl from 'yazl';
import { ZipArchive } from 'archiver';

const [data, unixPermissions] = [readFileSync('plugin'), statSync('plugin').mode];
const jszip = new JSZip().file('plugin', data, { unixPermissions });
writeFileSync('jszip.zip', await jszip.generateAsync({ type: 'nodebuffer' }));
writeFileSync('jszip-unix.zip', await jszip.generateAsync({ type: 'nodebuffer', platform: 'UNIX' }));
const adm = new AdmZip();
adm.addLocalFile('plugin');
adm.writeZip('adm-zip.zip');
const y = new yazl.ZipFile();
y.addFile('plugin', 'plugin');
y.end();
await once(y.outputStream.pipe(createWriteStream('yazl.zip')), 'close');
const archive = new ZipArchive();
const out = archive.pipe(createWriteStream('archiver.zip'));
archive.file('plugin', { name: 'plugin' });
await Promise.all([once(out, 'close'), archive.finalize()]);
EOT
cat > read.mjs <<'EOT'
import { mkdtempSync, readdirSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import extract from 'extract-zip';
import unzipper from 'unzipper';

const readers = {
  'extract-zip': (zip, dir) => extract(zip, { dir }),
  unzipper: async (zip, path) => (await unzipper.Open.file(zip)).extract({ path }),
};
for (const zip of readdirSync('.').filter((f) => f.endsWith('.zip')).sort()) {
  const seen = [];
  for (const [name, read] of Object.entries(readers)) {
    const dir = resolve(mkdtempSync('out'));
    await read(zip, dir);
    seen.push(`${name} ${(statSync(`${dir}/plugin`).mode & 0o777).toString(8)}`);
  }
  console.log(seen.join(', '));
}
EOT
for package in jszip adm-zip yazl archiver extract-zip unzipper; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local timeout 120 go run .
node write.mjs
LC_ALL=C GOTOOLCHAIN=local timeout 120 go run . adm-zip.zip archiver.zip go.zip jszip-unix.zip jszip.zip yazl.zip > go.seen
node read.mjs > node.seen
paste -d, go.seen node.seen | sed 's/,extract/, extract/' | tee seen
cat > want <<'EOT'
adm-zip.zip: archive/zip 755, extract-zip 755, unzipper 644
archiver.zip: archive/zip 755, extract-zip 755, unzipper 644
go.zip: archive/zip 755, extract-zip 755, unzipper 644
jszip-unix.zip: archive/zip 755, extract-zip 755, unzipper 644
jszip.zip: archive/zip 666, extract-zip 644, unzipper 644
yazl.zip: archive/zip 755, extract-zip 755, unzipper 644
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
