#!/usr/bin/env bash
# Guess: a plugin in Node that speaks yamux with a host in Go, by the library that names hashicorp/yamux as what it follows, has streams as those of Go are: what is written to one
# arrives whole, and who closes its side is heard at the other's end.
# Seen: yamux-js 0.2.0 (npm) against github.com/hashicorp/yamux v0.1.2 gets only frames that lie whole in what one read of the connection gives. Of 10,000 bytes whose frame TCP brings in two parts
# not all arrive, and of 1 MB that a host writes at once not all does; small messages do, and 1 MB from Node to Go. A stream that Go closes never ends in Node, where neither 'end' nor 'close' is told. And end(), which pipe()
# calls, tells Go nothing: it waits on, until Node calls close() of the stream.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save yamux-js@0.2.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/hashicorp/yamux v0.1.2
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/yamux"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// halved writes what is longer than a header of yamux in two parts, as a network may bring it.
type halved struct{ net.Conn }

func (h halved) Write(b []byte) (int, error) {
	if len(b) < 5000 {
		return h.Conn.Write(b)
	}
	n, err := h.Conn.Write(b[:len(b)/2])
	if err != nil {
		return n, err
	}
	time.Sleep(300 * time.Millisecond)
	m, err := h.Conn.Write(b[n:])
	return n + m, err
}

func serve(stream *yamux.Stream) {
	in := bufio.NewReader(stream)
	line, err := in.ReadString('\n')
	must(err)
	switch strings.TrimSpace(line) {
	case "small":
		io.WriteString(stream, "small")
		time.Sleep(time.Second)
		stream.Close()
	case "halved":
		stream.Write(bytes.Repeat([]byte("x"), 10_000))
	case "large":
		stream.Write(bytes.Repeat([]byte("x"), 1_000_000))
	case "take", "end", "close":
		stream.SetReadDeadline(time.Now().Add(8 * time.Second))
		n, err := io.Copy(io.Discard, in)
		if e, ok := err.(net.Error); ok && e.Timeout() {
			err = fmt.Errorf("nothing more within 8 s")
		}
		fmt.Printf("Go, Node has written and called %s: %d bytes, then %v\n", strings.TrimSpace(line), n, err)
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	for _, what := range []string{"small", "halved", "large", "end", "close"} {
		node := exec.Command("node", "main.cjs", fmt.Sprint(listener.Addr().(*net.TCPAddr).Port), what)
		node.Stdout, node.Stderr = os.Stdout, os.Stderr
		must(node.Start())
		conn, err := listener.Accept()
		must(err)
		session, err := yamux.Server(halved{conn}, config)
		must(err)
		stream, err := session.AcceptStream()
		must(err)
		go session.AcceptStream()
		serve(stream)
		must(node.Wait())
		session.Close()
	}
}
EOT
cat > main.cjs <<'EOT'
const net = require('node:net');
const { Client } = require('yamux-js');

const [, , port, what] = process.argv;
const connection = net.connect(+port, '127.0.0.1', () => {
  const session = new Client({ enableKeepAlive: false, logger: () => {} });
  const refused = (e) => { seen.push(`error ${e.message}`); };
  session.on('error', refused);
  connection.pipe(session).pipe(connection);
  const stream = session.open();
  const seen = [];
  let bytes = 0;
  stream.on('error', refused).on('data', (data) => { bytes += data.length; }).on('end', () => seen.push('end')).on('close', () => seen.push('close'));
  stream.write(`${what}\n`);
  if (what === 'end' || what === 'close') {
    stream.write(Buffer.alloc(1_000_000));
    setTimeout(() => stream[what](), 2000);
    setTimeout(() => process.exit(0), 10000);
    return;
  }
  setTimeout(() => {
    const whole = { small: 5, halved: 10_000, large: 1_000_000 }[what];
    console.log(`Node, ${what}: whole ${bytes === whole}, ended ${seen.includes('end') || seen.includes('close')}`);
    process.exit(0);
  }, 6000);
});
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/hashicorp/yamux
node -p '"yamux-js " + require("./node_modules/yamux-js/package.json").version'
GOTOOLCHAIN=local go build -o host .
timeout 120 ./host | tee seen
cat > want <<'EOT'
Node, small: whole true, ended false
Node, halved: whole false, ended false
Node, large: whole false, ended false
Go, Node has written and called end: 1000000 bytes, then nothing more within 8 s
Go, Node has written and called close: 1000000 bytes, then <nil>
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
