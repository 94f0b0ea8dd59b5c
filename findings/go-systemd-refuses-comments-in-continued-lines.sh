#!/usr/bin/env bash
# Guess: a unit of a plugin that systemd takes is read by go-systemd's package unit, which reads "systemd unit files", and the name that it makes of a path is that of systemd-escape.
# Seen: github.com/coreos/go-systemd/v22 v22.7.0 refuses a unit with a comment between continued lines ("unexpected newline encountered while parsing option name"), and has the comment in the value
# before it; systemd.syntax(7) has such a comment ignored, and systemd 252 verifies that unit without a word. A continued line without one it gives with the backslash and the newline, which systemd
# replaces by a blank. Of "/srv/./data" it makes "srv-.-data", and systemd-escape --path "srv-data"; other paths and names are alike. (Needs systemd-analyze and systemd-escape.)
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
printf '[Service]\nExecStart=/bin/echo one \\\n  two\n' > plain.service
printf '[Service]\nExecStart=/bin/echo one \\\n# says more\n  two\n' > comment.service
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/coreos/go-systemd/v22 v22.7.0
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	for _, file := range []string{"plain.service", "comment.service"} {
		said, err := exec.Command("systemd-analyze", "verify", "--man=no", "./"+file).CombinedOutput()
		must(err)
		// What it says of other units of this machine does not count.
		fmt.Println(file, "systemd names it in a warning:", bytes.Contains(said, []byte(file)))
		data, err := os.ReadFile(file)
		must(err)
		options, err := unit.DeserializeOptions(bytes.NewReader(data))
		fmt.Println(file, "go-systemd:", err)
		for _, option := range options {
			fmt.Printf("  %s %q\n", option.Name, option.Value)
		}
	}
	for _, path := range []string{"/", "/srv//my-data/", "/.a/b c", "/srv/./data"} {
		out, err := exec.Command("systemd-escape", "--path", "--", path).Output()
		must(err)
		fmt.Println(path, "systemd-escape:", strings.TrimSpace(string(out)), "go-systemd:", unit.UnitNamePathEscape(path))
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go build -o units . 2> /dev/null
go list -m github.com/coreos/go-systemd/v22
systemd-escape --version | head -1
timeout 60 ./units | tee seen
cat > want <<'EOT'
plain.service systemd names it in a warning: false
plain.service go-systemd: <nil>
  ExecStart "/bin/echo one \\\n  two"
comment.service systemd names it in a warning: false
comment.service go-systemd: unexpected newline encountered while parsing option name
  ExecStart "/bin/echo one \\\n# says more"
/ systemd-escape: - go-systemd: -
/srv//my-data/ systemd-escape: srv-my\x2ddata go-systemd: srv-my\x2ddata
/.a/b c systemd-escape: \x2ea-b\x20c go-systemd: \x2ea-b\x20c
/srv/./data systemd-escape: srv-data go-systemd: srv-.-data
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
