#!/usr/bin/env bash
# Guess: a configuration in HOCON, as plugins of the JVM have, is read in Node as HOCON.md of lightbend/config says, or is refused.
# Seen: hocon-parser 1.0.1 (npm) takes all of these texts and reads nine of the ten as something else: of a value without quotes it keeps the first word ("two words here" is
# "two"), += makes a key "a +", a key "a.b" in quotes is a path, null does not end the object before it, \n in quotes is n, -1 is a text, include makes a key, an object after
# a reference loses what is its own, and a list after a reference is the whole document. @pushcorn/hocon-parser 1.3.1 reads them as the specification does, but that += makes a
# text of the number 2.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save hocon-parser@1.0.1 @pushcorn/hocon-parser@1.3.1 > /dev/null 2>&1
cat > main.mjs <<'EOT'
import pushcorn from '@pushcorn/hocon-parser';
import parse from 'hocon-parser';

// Each text, and what HOCON.md makes of it.
const texts = [
  ['a.b = 1\na { c = 2 }', { a: { b: 1, c: 2 } }],
  ['a = two words here', { a: 'two words here' }],
  ['a = [1]\na += 2', { a: [1, 2] }],
  ['"a.b" = 1', { 'a.b': 1 }],
  ['a = { b = 1 }\na = null\na = { c = 2 }', { a: { c: 2 } }],
  ['a = "x\\ny"', { a: 'x\ny' }],
  ['a = -1', { a: -1 }],
  ['include "missing.conf"\na = 1', { a: 1 }],
  ['a = { x = 1 }\nb = ${a} { y = 2 }', { a: { x: 1 }, b: { x: 1, y: 2 } }],
  ['a = [1]\nb = ${a} [2]', { a: [1], b: [1, 2] }],
];
for (const [text, expected] of texts) {
  console.log(JSON.stringify(text));
  for (const [name, read] of [['hocon-parser', parse], ['pushcorn', (text) => pushcorn.parse({ text })]]) {
    const value = JSON.stringify(await read(text));
    console.log(`  ${name}: ${value}${value === JSON.stringify(expected) ? '' : ', not as specified'}`);
  }
}
EOT
for package in hocon-parser @pushcorn/hocon-parser; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
timeout 60 node main.mjs | tee seen
cat > want <<'EOT'
"a.b = 1\na { c = 2 }"
  hocon-parser: {"a":{"b":1,"c":2}}
  pushcorn: {"a":{"b":1,"c":2}}
"a = two words here"
  hocon-parser: {"a":"two"}, not as specified
  pushcorn: {"a":"two words here"}
"a = [1]\na += 2"
  hocon-parser: {"a":[1],"a +":2}, not as specified
  pushcorn: {"a":[1,"2"]}, not as specified
"\"a.b\" = 1"
  hocon-parser: {"a":{"b":1}}, not as specified
  pushcorn: {"a.b":1}
"a = { b = 1 }\na = null\na = { c = 2 }"
  hocon-parser: {"a":{"b":1,"c":2}}, not as specified
  pushcorn: {"a":{"c":2}}
"a = \"x\\ny\""
  hocon-parser: {"a":"xny"}, not as specified
  pushcorn: {"a":"x\ny"}
"a = -1"
  hocon-parser: {"a":"-1"}, not as specified
  pushcorn: {"a":-1}
"include \"missing.conf\"\na = 1"
  hocon-parser: {"include missing":{"conf":"a"},"":1}, not as specified
  pushcorn: {"a":1}
"a = { x = 1 }\nb = ${a} { y = 2 }"
  hocon-parser: {"a":{"x":1},"b":{"x":1},"y":2}, not as specified
  pushcorn: {"a":{"x":1},"b":{"x":1,"y":2}}
"a = [1]\nb = ${a} [2]"
  hocon-parser: [2], not as specified
  pushcorn: {"a":[1],"b":[1,2]}
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
