#!/usr/bin/env bash
# Guess: what a plugin of go-plugin logs to stderr in JSON arrives in the host's log with its level and its text, whichever logger of Go
# wrote it; at least with the one of the standard library.
# Seen: github.com/hashicorp/go-plugin v1.8.0 (github.com/hashicorp/go-hclog v1.6.3) reads only the keys of hclog, @level, @message and
# @timestamp. An error of log/slog's JSONHandler, of its TextHandler, of go.uber.org/zap v1.28.0 (production) arrives as one of level
# debug, the line as its text: a host that logs from info up shows none. So does hclog's own text. With slog's keys for
# level and text renamed the error is an error. With the time renamed too, it is debug again: slog writes nine digits of a second, and a
# time in another form than hclog's, six, makes the whole line no JSON for go-plugin.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/hashicorp/go-hclog v1.6.3
	github.com/hashicorp/go-plugin v1.8.0
	go.uber.org/zap v1.28.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

var handshake = plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "COOKIE", MagicCookieValue: "yes"}

type nothing struct{ plugin.NetRPCUnsupportedPlugin }

func (nothing) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return nil }

func (nothing) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

var plugins = plugin.PluginSet{"nothing": nothing{}}

func main() {
	if os.Getenv("COOKIE") != "" {
		complain()
		plugin.Serve(&plugin.ServeConfig{HandshakeConfig: handshake, Plugins: plugins, GRPCServer: plugin.DefaultGRPCServer})
		return
	}
	lines := make(chan string, 100)
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Trace, Output: io.Discard})
	logger.RegisterSink(&sink{lines})
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: handshake, Plugins: plugins, Cmd: exec.Command(os.Args[0]), AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, Logger: logger,
	})
	if _, err := client.Client(); err != nil {
		panic(err)
	}
	seen := map[string]string{}
	for last := time.After(20 * time.Second); len(seen) < len(complaints); {
		select {
		case line := <-lines:
			for name := range complaints {
				if strings.Contains(line, name+" complains") {
					level, message, _ := strings.Cut(line, " ")
					seen[name] = level
					fmt.Printf("%-12s arrives as %-5s %s\n", name+":", level, message)
				}
			}
		case <-last:
			panic("a line is missing")
		}
	}
	client.Kill()
	for name, level := range complaints {
		if seen[name] != level {
			fmt.Println("CHANGED")
			os.Exit(1)
		}
	}
}

// sink hears what the host logs.
type sink struct{ lines chan<- string }

func (s *sink) Accept(_ string, level hclog.Level, message string, _ ...any) {
	s.lines <- fmt.Sprint(level, " ", message)
}

// complaints has the loggers and the level that each one's error arrives with.
var complaints = map[string]string{
	"slog-json": "debug", "slog-text": "debug", "zap": "debug", "hclog-text": "debug", "hclog-json": "error", "slog-two": "error", "slog-three": "debug",
}

// complain is the plugin's part: one error with each logger.
func complain() {
	slog.New(slog.NewJSONHandler(os.Stderr, nil)).Error("slog-json complains", "disk", "full")
	slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("slog-text complains", "disk", "full")
	slog.New(slog.NewJSONHandler(os.Stderr, renamed(slog.LevelKey, slog.MessageKey))).Error("slog-two complains", "disk", "full")
	slog.New(slog.NewJSONHandler(os.Stderr, renamed(slog.LevelKey, slog.MessageKey, slog.TimeKey))).Error("slog-three complains", "disk", "full")
	production, err := zap.NewProduction()
	if err != nil {
		panic(err)
	}
	production.Error("zap complains", zap.String("disk", "full"))
	hclog.New(&hclog.LoggerOptions{Output: os.Stderr}).Error("hclog-text complains", "disk", "full")
	hclog.New(&hclog.LoggerOptions{Output: os.Stderr, JSONFormat: true}).Error("hclog-json complains", "disk", "full")
}

// renamed gives keys of slog the names that hclog has for them.
func renamed(keys ...string) *slog.HandlerOptions {
	names := map[string]string{slog.LevelKey: "@level", slog.MessageKey: "@message", slog.TimeKey: "@timestamp"}
	return &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		for _, key := range keys {
			if a.Key == key {
				a.Key = names[key]
			}
		}
		return a
	}}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version
grep -E 'go-hclog|go-plugin|zap v' go.mod
GOTOOLCHAIN=local go build -o host .
./host
