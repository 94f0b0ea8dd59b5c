#!/usr/bin/env bash
# Guess: a server of net/http behind an SSH tunnel, on the listener that ssh.Client.Listen gives for "ssh -R", is the server that it is on TCP: what
# http.Server's timeouts end there they end here, or Serve refuses a connection that cannot have them.
# Seen: connections of golang.org/x/crypto/ssh v0.59.0 have no deadlines: setting one is an error, "ssh: tcpChan: deadline not supported", and
# net/http (Go 1.26) does not look at it. WriteTimeout and IdleTimeout are taken and have no effect: a handler that is too slow answers with
# status 200, where over TCP there is no answer, and a connection without a request stays. http.ResponseController, which a handler may ask,
# gives the error. What else in net/http goes by deadlines, such as to take a connection over for another protocol, cannot be relied on either.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require golang.org/x/crypto v0.59.0
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/crypto/ssh"
)

func main() {
	plain := listen()
	tunnel, address := forwarded()
	mux := http.NewServeMux()
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(2 * time.Second)
		io.WriteString(w, "late")
	})
	mux.HandleFunc("/deadline", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Hour)))
	})
	s := &http.Server{Handler: mux, WriteTimeout: time.Second, IdleTimeout: time.Second}
	go s.Serve(plain)
	go s.Serve(tunnel)
	ask("tcp", plain.Addr().String())
	ask("ssh", address)
}

func ask(name, address string) {
	c, err := net.Dial("tcp", address)
	check(err)
	answers := bufio.NewReader(c)
	io.WriteString(c, "GET /deadline HTTP/1.1\r\nHost: localhost\r\n\r\n")
	res, err := http.ReadResponse(answers, nil)
	check(err)
	text, err := io.ReadAll(res.Body)
	check(err)
	fmt.Printf("%s: SetReadDeadline: %s\n", name, text)
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err = answers.ReadByte(); err == io.EOF {
		fmt.Println(name + ": idle for five times IdleTimeout: closed")
	} else {
		fmt.Println(name + ": idle for five times IdleTimeout: open")
	}
	c.Close()

	c, err = net.Dial("tcp", address)
	check(err)
	defer c.Close()
	io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if res, err = http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		fmt.Println(name + ": slower than WriteTimeout: no answer")
	} else {
		fmt.Println(name+": slower than WriteTimeout:", res.Status)
	}
}

// forwarded gives the listener of an SSH client, and the address at which its server takes connections for it.
func forwarded() (net.Listener, string) {
	_, key, err := ed25519.GenerateKey(nil)
	check(err)
	signer, err := ssh.NewSignerFromKey(key)
	check(err)
	ln, port := listen(), listen()
	go sshd(ln, port, signer)
	client, err := ssh.Dial("tcp", ln.Addr().String(), &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(signer.PublicKey())})
	check(err)
	remote, err := client.Listen("tcp", "127.0.0.1:0")
	check(err)
	return remote, port.Addr().String()
}

// sshd serves one client, and forwards to it what comes to port.
func sshd(ln, port net.Listener, signer ssh.Signer) {
	raw, err := ln.Accept()
	check(err)
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	client, channels, requests, err := ssh.NewServerConn(raw, config)
	check(err)
	go func() {
		for c := range channels {
			c.Reject(ssh.Prohibited, "not offered")
		}
	}()
	number := uint32(port.Addr().(*net.TCPAddr).Port)
	for r := range requests {
		r.Reply(r.Type == "tcpip-forward", binary.BigEndian.AppendUint32(nil, number))
		if r.Type == "tcpip-forward" {
			go forward(client, port, number)
		}
	}
}

func forward(client ssh.Conn, port net.Listener, number uint32) {
	for {
		from, err := port.Accept()
		check(err)
		to, requests, err := client.OpenChannel("forwarded-tcpip", ssh.Marshal(struct {
			Address    string
			Port       uint32
			Originator string
			From       uint32
		}{"127.0.0.1", number, "127.0.0.1", 1}))
		check(err)
		go ssh.DiscardRequests(requests)
		go func() {
			io.Copy(to, from)
			to.CloseWrite()
		}()
		go func() {
			io.Copy(from, to)
			from.Close()
		}()
	}
}

func listen() net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	return ln
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version; grep 'x/crypto' go.mod
GOTOOLCHAIN=local timeout 120 go run . | tee seen
cat > want <<'EOT'
tcp: SetReadDeadline: <nil>
tcp: idle for five times IdleTimeout: closed
tcp: slower than WriteTimeout: no answer
ssh: SetReadDeadline: ssh: tcpChan: deadline not supported
ssh: idle for five times IdleTimeout: open
ssh: slower than WriteTimeout: 200 OK
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
