package client_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// An answer that never ends, or takes its time, or swells when it is decompressed,
// costs the client its deadline and no more. It does not run in parallel: it
// measures.
func TestAudit_H63_EndlessAnswersEnd(t *testing.T) {
	const timeout, longWait, slack = time.Second, 30 * time.Second, 10
	host := hosttest.StartHostileHost(t, nil)
	block := make([]byte, 64<<10)
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	bomb := hosttest.GzipOf(t, 4<<30)
	answers := map[string]http.HandlerFunc{
		"an endless message": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			endless(w, r)
		},
		"an endless error": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			endless(w, r)
		},
		"an endless page": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			endless(w, r)
		},
		"a message of a byte a time": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte{0})
				_ = http.NewResponseController(w).Flush()
				<-time.After(10 * time.Millisecond)
			}
		},
		"nothing at all": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb)
		},
		"a bomb as an error": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write(bomb)
		},
	}
	for name, answer := range answers {
		host.Answer(hosttest.HandshakePath, answer)
		// A busy machine may be late. Bombs are not even lit: no deadline ends them.
		deadline, most := timeout, slack*timeout
		if strings.HasPrefix(name, "a bomb") {
			deadline, most = longWait, longWait/2
		}
		c := host.Client(t, func(cfg *connectplugin.ClientConfig) { cfg.Timeout = deadline })
		before, start := hosttest.Allocated(), time.Now()
		if err := c.Connect(t.Context()); err == nil || c.RuntimeID() != "" {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > most {
			t.Errorf("%s: took %s", name, took)
		}
		if used := hosttest.Allocated() - before; used > 256<<20 { // other tests allocate beside this one
			t.Errorf("%s: %d MiB allocated", name, used>>20)
		}
		start = time.Now()
		_ = c.Close()
		if took := time.Since(start); took > slack*timeout {
			t.Errorf("%s: Close took %s", name, took)
		}
	}
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
	if err := host.Client(t, nil).Connect(t.Context()); err != nil {
		t.Errorf("an honest answer: %v", err)
	}
}

// The text of a refusal is the host's; what the client makes of it fits a log line.
func TestAudit_H63_ErrorsOfTheHostAreBounded(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		host.Answer(hosttest.HandshakePath, func(w http.ResponseWriter, r *http.Request) {
			err := connect.NewError(code, errors.New("no\r\nlevel=ERROR msg=forged \x1b[2J\u202e"+strings.Repeat("long", 100_000)))
			err.Meta().Set("X-Anything", strings.Repeat("x", 1000))
			_ = connect.NewErrorWriter().Write(w, r, err)
		})
		err := host.Client(t, nil).Connect(t.Context())
		if connect.CodeOf(err) != code {
			t.Errorf("%s became %s", code, connect.CodeOf(err))
		}
		if text := fmt.Sprint(err); len(text) > 2048 || strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			t.Errorf("%s: an error of %d bytes: %.100q", code, len(text), text)
		}
	}
}

// What the host warns of is for the operator's log, which it must not flood or
// forge.
func TestAudit_H63_WarningsAreBounded(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	var log hosttest.Buffer
	logged := func(cfg *connectplugin.ClientConfig) {
		cfg.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	flood := make([]string, 200_000)
	for i := range flood {
		flood[i] = fmt.Sprint("w", i)
	}
	flood[0], flood[1] = "line\nlevel=ERROR msg=forged \u202e\x1b[2J", strings.Repeat("long", 10_000)
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(func(m *connectpluginv1.HandshakeResponse) { m.Warnings = flood }))
	c := host.Client(t, logged)
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	const most = 2000 // more than an honest host has to say
	if n := strings.Count(log.String(), "\n"); n > most {
		t.Errorf("%d lines in the log", n)
	}
	warnings := c.Warnings()
	if len(warnings) > most {
		t.Errorf("%d warnings", len(warnings))
	}
	for _, w := range warnings {
		if len(w) > 1024 || strings.IndexFunc(w, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			t.Errorf("a warning of %d bytes: %.80q", len(w), w)
		}
	}
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(func(m *connectpluginv1.HandshakeResponse) { m.Warnings = []string{"version 2 is deprecated"} }))
	c = host.Client(t, logged)
	if err := c.Connect(t.Context()); err != nil || len(c.Warnings()) != 1 || c.Warnings()[0] != "version 2 is deprecated" {
		t.Errorf("an honest warning: %v, %q", err, c.Warnings())
	}
	if !strings.Contains(log.String(), "version 2 is deprecated") {
		t.Error("the warning did not reach the log")
	}
}
