#!/usr/bin/env bash
# Guess: where a plugin is found, a target such as ipv4:127.0.0.1:8080 or unix-abstract:name, is one text for callers in Go, Node and Python: gRPC's naming
# (doc/naming.md) has the schemes and how each is written, and a name without a scheme is one for DNS.
# Seen: google.golang.org/grpc v1.85.0 (NewClient), @grpc/grpc-js 1.14.7 (npm) and grpcio 1.51.1 (Debian 12) agree on names without a scheme, dns:NAME, dns:///NAME and
# unix:PATH. (1) Go has no ipv4: and no ipv6:, and takes such a target, with several addresses or with one, for a host's name: "too many colons in address". (2) Node has no
# unix-abstract:, and takes it for a host's name. (3) passthrough: is Go's alone, and so are a scheme in capital letters and ":8080" without a host. (4) dns:/NAME is
# no name in Node, and unix:////PATH, with one "/" too many, no path in Python. (5) ipv6:%5B::1%5D:8080, as naming.md writes it, is read by Python alone.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/grpc-js@1.14.7 > /dev/null 2>&1
# With the libraries that it needs: not every machine has them.
apt-get download python3-grpcio=1.51.1-3+b1 libc-ares2 libre2-9 libabsl20220623 > /dev/null 2>&1
for package in *.deb; do dpkg-deb -x "$package" root; done
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// inGo, inNode and inPython tell whether a call to the target is answered.
func inGo(target string) string {
	conn := must(grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials())))
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := conn.Invoke(ctx, "/e.E/Get", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		return "no"
	}
	return "yes"
}

func inNode(target string) string {
	return strings.TrimSpace(string(must(exec.Command("node", "main.cjs", target).Output())))
}

func inPython(target string) string {
	cmd := exec.Command("/usr/bin/python3", "main.py", target)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+os.Getenv("LIBRARIES"), "PYTHONPATH=root/usr/lib/python3/dist-packages")
	return strings.TrimSpace(string(must(cmd.Output())))
}

func main() {
	dir := must(os.Getwd())
	name := fmt.Sprint("finding-", os.Getpid())
	four := must(net.Listen("tcp", "127.0.0.1:0"))
	_, port, _ := net.SplitHostPort(four.Addr().String())
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		if err := s.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		return s.SendMsg(&emptypb.Empty{})
	}))
	for _, l := range []net.Listener{four, must(net.Listen("tcp", "[::1]:"+port)), must(net.Listen("unix", "s")), must(net.Listen("unix", "@"+name))} {
		go server.Serve(l)
	}
	holds := true
	for _, c := range [][2]string{
		{"localhost:PORT", "yes yes yes"},
		{"[::1]:PORT", "yes yes yes"},
		{"dns:localhost:PORT", "yes yes yes"},
		{"dns:///localhost:PORT", "yes yes yes"},
		{"dns:/localhost:PORT", "yes no yes"},
		{"DNS:///localhost:PORT", "yes no no"},
		{":PORT", "yes no no"},
		{"passthrough:///127.0.0.1:PORT", "yes no no"},
		{"ipv4:127.0.0.1:PORT", "no yes yes"},
		{"ipv4:127.0.0.1:PORT,127.0.0.1:PORT", "no yes yes"},
		{"ipv6:[::1]:PORT", "no yes yes"},
		{"ipv6:%5B::1%5D:PORT", "no no yes"},
		{"unix:s", "yes yes yes"},
		{"unix:DIR/s", "yes yes yes"},
		{"unix://DIR/s", "yes yes yes"},
		{"unix:///DIR/s", "yes yes no"},
		{"unix-abstract:NAME", "yes no yes"},
	} {
		target := strings.NewReplacer("PORT", port, "DIR", dir, "NAME", name).Replace(c[0])
		seen := strings.Join([]string{inGo(target), inNode(target), inPython(target)}, " ")
		fmt.Printf("%s: in Go, Node, Python %s\n", c[0], seen)
		holds = holds && seen == c[1]
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
cat > main.cjs <<'EOT'
const grpc = require('@grpc/grpc-js');

const bytes = (x) => x;
const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure());
client.makeUnaryRequest('/e.E/Get', bytes, bytes, Buffer.alloc(0), { deadline: Date.now() + 3000 }, (e) => {
  console.log(e ? 'no' : 'yes');
  process.exit();
});
EOT
cat > main.py <<'EOT'
import sys

import grpc

try:
    grpc.insecure_channel(sys.argv[1]).unary_unary("/e.E/Get")(b"", timeout=3)
    print("yes")
except grpc.RpcError:
    print("no")
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m google.golang.org/grpc
echo "grpc-js $(node -p 'require("./node_modules/@grpc/grpc-js/package.json").version')"
ls ./*grpcio*.deb
GOTOOLCHAIN=local go build -o finding .
LIBRARIES=$(echo "$dir"/root/usr/lib/*-linux-gnu) timeout 180 ./finding 2> /dev/null
