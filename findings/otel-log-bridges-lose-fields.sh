#!/usr/bin/env bash
# Guess: what a program logs reaches OpenTelemetry by the bridges of Go's loggers with the fields and the nesting that the same logger writes as JSON,
# whichever fields there are: an error has its key, and a namespace or group holds what comes behind it.
# Seen: (1) go.opentelemetry.io/contrib/bridges/otelslog v0.21.0 makes the attributes exception.message and exception.type of each error and drops its key. Of
# two errors in one record, as "err" and "cleanup", the last alone is left, and one that came With the logger gives way to the record's own. In WithGroup the
# error is outside the group; in slog.Group it stays inside, with its key. (2) With go.opentelemetry.io/contrib/bridges/otelzap v0.21.0 a zap.Namespace that
# comes With the logger is closed behind that With: fields of the record stand outside, the namespace stays empty, and a field that has the name of an outer
# one takes its place, so that the request has the id of its peer. In one call, with the namespace and the fields behind it, it is right, and so are two
# errors.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	go.opentelemetry.io/contrib/bridges/otelslog v0.21.0
	go.opentelemetry.io/contrib/bridges/otelzap v0.21.0
	go.opentelemetry.io/otel v1.47.0
	go.opentelemetry.io/otel/sdk/log v1.47.0
	go.uber.org/zap v1.28.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/contrib/bridges/otelzap"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/log"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// seen is what came, a line for a record.
var seen []string

type collector struct{}

func (collector) OnEmit(_ context.Context, r *log.Record) error {
	line := r.Body().String() + ":"
	r.WalkAttributes(func(kv attribute.KeyValue) bool {
		if kv.Key != "exception.type" {
			line += fmt.Sprintf(" %s=%s", kv.Key, kv.Value.Emit())
		}
		return true
	})
	seen = append(seen, line)
	return nil
}

func (collector) Enabled(context.Context, log.EnabledParameters) bool { return true }
func (collector) Shutdown(context.Context) error                      { return nil }
func (collector) ForceFlush(context.Context) error                    { return nil }

// lines are records that slog and zap write to both handlers of a kind.
func lines(l *slog.Logger, z *zap.Logger) {
	full, stuck := errors.New("full"), errors.New("stuck")
	l.Error("slog, two errors", "err", full, "cleanup", stuck)
	l.With("err", full).Error("slog, one With", "cleanup", stuck)
	l.WithGroup("peer").Error("slog, WithGroup", "id", 2, "err", full)
	l.Error("slog, Group", slog.Group("peer", "id", 2, "err", full))
	z.Error("zap, two errors", zap.NamedError("err", full), zap.NamedError("cleanup", stuck))
	z.Error("zap, one call", zap.Int("id", 1), zap.Namespace("peer"), zap.Int("id", 2))
	z.With(zap.Int("id", 1), zap.Namespace("peer")).Error("zap, With", zap.Int("id", 2))
	z.With(zap.Int("id", 1)).With(zap.Namespace("peer")).With(zap.Int("id", 2)).Error("zap, With thrice")
}

func main() {
	// As JSON.
	plain := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}))
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"})
	lines(plain, zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stdout), zap.DebugLevel)))
	// By the bridges.
	provider := log.NewLoggerProvider(log.WithProcessor(collector{}))
	lines(otelslog.NewLogger("finding", otelslog.WithLoggerProvider(provider)), zap.New(otelzap.NewCore("finding", otelzap.WithLoggerProvider(provider))))
	want := []string{
		"slog, two errors: exception.message=stuck",
		"slog, one With: exception.message=stuck",
		`slog, WithGroup: peer={"id":2} exception.message=full`,
		`slog, Group: peer={"err":"full","id":2}`,
		"zap, two errors: err=full cleanup=stuck",
		`zap, one call: id=1 peer={"id":2}`,
		"zap, With: id=2 peer={}",
		"zap, With thrice: id=2 peer={}",
	}
	fmt.Println(strings.Join(seen, "\n"))
	if !slices.Equal(seen, want) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.opentelemetry.io/contrib/bridges/otelslog go.opentelemetry.io/contrib/bridges/otelzap
GOTOOLCHAIN=local timeout 120 go run .
