#!/usr/bin/env bash
# Guess: once the keys of time, level and text have slog's names, what a *slog.Logger writes has one form whichever logger is behind it, as
# testing/slogtest demands of a handler: a group is an object, and a group without attributes and a time that is zero are left out.
# Seen: of seven loggers with Go 1.26 three fail. zerolog v1.35.1 writes groups as dots in keys, "peer.at.id", and puts what the logger had before
# WithGroup into the group: With("id", 1).WithGroup("peer") gives "peer.id":1, and a second one where the group has an id. charm.land/log/v2
# v2.0.1 makes of WithGroup a field "prefix" and leaves its attributes outside, where an id stands twice; a group without a name it does not
# inline, and an empty attribute it writes. Whoever reads such a line as JSON has one of the two. github.com/go-logr/logr v1.4.4 over zapr v1.3.0
# writes empty groups. zapslog of go.uber.org/zap/exp v0.3.0, github.com/phuslu/log v1.0.121 and slog-multi v1.7.1 pass.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	charm.land/log/v2 v2.0.1
	github.com/go-logr/logr v1.4.4
	github.com/go-logr/zapr v1.3.0
	github.com/phuslu/log v1.0.121
	github.com/rs/zerolog v1.35.1
	github.com/samber/slog-multi v1.7.1
	go.uber.org/zap v1.28.0
	go.uber.org/zap/exp v0.3.0
)
EOT
cat > finding_test.go <<'EOT'
package finding

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/slogtest"

	charm "charm.land/log/v2"
	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	phuslu "github.com/phuslu/log"
	"github.com/rs/zerolog"
	slogmulti "github.com/samber/slog-multi"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// loggers write JSON, with slog's names for time, level and text.
var loggers = []struct {
	name    string
	handler func(io.Writer) slog.Handler
}{
	{"slog", func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) }},
	{"slog-multi", func(w io.Writer) slog.Handler {
		return slogmulti.Fanout(slog.NewJSONHandler(w, nil), slog.NewJSONHandler(io.Discard, nil))
	}},
	{"phuslu", func(w io.Writer) slog.Handler { return phuslu.SlogNewJSONHandler(w, nil) }},
	{"zapslog", func(w io.Writer) slog.Handler { return zapslog.NewHandler(core(w)) }},
	{"zapr", func(w io.Writer) slog.Handler { return logr.ToSlogHandler(zapr.NewLogger(zap.New(core(w)))) }},
	{"charm", func(w io.Writer) slog.Handler {
		return charm.NewWithOptions(w, charm.Options{Formatter: charm.JSONFormatter, ReportTimestamp: true})
	}},
	{"zerolog", func(w io.Writer) slog.Handler { return zerolog.NewSlogHandler(zerolog.New(w)) }},
}

func core(w io.Writer) zapcore.Core {
	cfg := zap.NewProductionEncoderConfig()
	cfg.TimeKey, cfg.LevelKey, cfg.MessageKey = slog.TimeKey, slog.LevelKey, slog.MessageKey
	cfg.CallerKey = zapcore.OmitKey
	return zapcore.NewCore(zapcore.NewJSONEncoder(cfg), zapcore.AddSync(w), zap.InfoLevel)
}

func Test(t *testing.T) {
	zerolog.MessageFieldName = slog.MessageKey
	for _, l := range loggers {
		show(l.name, l.handler)
		t.Run(l.name, func(t *testing.T) {
			var written *bytes.Buffer
			slogtest.Run(t, func(*testing.T) slog.Handler {
				written = new(bytes.Buffer)
				return l.handler(written)
			}, func(t *testing.T) (got map[string]any) {
				if err := json.Unmarshal(written.Bytes(), &got); err != nil {
					t.Fatalf("%s: %v", written, err)
				}
				return got
			})
		})
	}
}

// show writes a line with the same key outside a group of the logger's, in it, and in one within that, and one of an empty group.
func show(name string, handler func(io.Writer) slog.Handler) {
	var written bytes.Buffer
	log := slog.New(handler(&written)).With("id", 1).WithGroup("peer")
	log.Info("m", "id", 2, slog.Group("at", "id", 3))
	log.Info("n")
	for line := range strings.Lines(written.String()) {
		fmt.Print(name, " writes ", when.ReplaceAllString(line, ""))
	}
}

var when = regexp.MustCompile(`"time":[^,]*,|,"time":[^,}]*`)
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version
grep -E '^	(charm.land/log|github.com/(go-logr|phuslu|rs|samber/slog-multi)|go.uber.org/zap)' go.mod
GOTOOLCHAIN=local go test -v . > out 2>&1 || true
grep ' writes ' out | tee seen
sed -n 's/^ *--- FAIL: Test\/\([^ ]*\)\/\([^ ]*\) .*/\1 fails at \2/p' out | tee -a seen
{
  for name in slog slog-multi phuslu; do
    echo "$name"' writes {"level":"INFO","msg":"m","id":1,"peer":{"id":2,"at":{"id":3}}}'
    echo "$name"' writes {"level":"INFO","msg":"n","id":1}'
  done
  cat <<'EOT'
zapslog writes {"level":"info","msg":"m","id":1,"peer":{"id":2,"at":{"id":3}}}
zapslog writes {"level":"info","msg":"n","id":1}
zapr writes {"level":"info","msg":"m","id":1,"peer":{"id":2,"at":{"id":3}}}
zapr writes {"level":"info","msg":"n","id":1,"peer":{}}
charm writes {"level":"info","prefix":"peer","msg":"m","id":1,"id":2,"at":{"id":3}}
charm writes {"level":"info","prefix":"peer","msg":"n","id":1}
zerolog writes {"level":"info","peer.id":1,"peer.id":2,"peer.at.id":3,"msg":"m"}
zerolog writes {"level":"info","peer.id":1,"msg":"n"}
EOT
  printf 'zapr fails at %s\n' empty-group-record nested-empty-group-record
  printf 'charm fails at %s\n' empty-attr inline-group WithGroup multi-With empty-group-record nested-empty-group-record
  printf 'zerolog fails at %s\n' groups WithGroup multi-With empty-group-record nested-empty-group-record resolve-groups resolve-WithAttrs-groups
} > want
cmp -s seen want || { echo CHANGED; exit 1; }
