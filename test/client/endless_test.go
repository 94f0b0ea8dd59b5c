package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

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

// pouring passes for a host that says something new with every answer, and without end where it can.
type pouring struct{ reports, looks atomic.Int64 }

// Do implements connect.HTTPClient.
func (h *pouring) Do(r *http.Request) (*http.Response, error) {
	time.Sleep(time.Millisecond)
	resp := &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{}, Request: r, Body: http.NoBody}
	switch r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] {
	case "Handshake":
		return message(resp, hosttest.Welcome(func(m *connectpluginv1.HandshakeResponse) {
			m.TokenExpiresAt = timestamppb.New(time.Now().Add(time.Millisecond))
			for i := range 100 {
				m.Warnings = append(m.Warnings, fmt.Sprint(i, strings.Repeat("long", i%2*200)))
			}
		})), nil
	case "ReportHealth":
		types := []string{"own", "other"}[h.reports.Add(1)%2:]
		for i := range 2000 {
			types = append(types, fmt.Sprint("t", i, "x", h.reports.Load()))
		}
		resp.Header.Set("X-Plugin-Standby", strings.Join(types, ","))
		return message(resp, &connectpluginv1.ReportHealthResponse{}), nil
	case "DiscoverService":
		h.looks.Add(1)
		resp.StatusCode = http.StatusNotFound
		resp.Header.Set("Content-Type", "application/json")
		resp.Body = io.NopCloser(strings.NewReader(`{"code":"not_found","message":"` + strings.Repeat("no", 5000) + `"}`))
		return resp, nil
	case "WatchService":
		resp.Header.Set("Content-Type", "application/connect+proto")
		resp.Body = io.NopCloser(&events{ctx: r.Context()})
		return resp, nil
	case "RegisterService":
		return message(resp, &connectpluginv1.RegisterServiceResponse{RegistrationId: "r"}), nil
	}
	return message(resp, &connectpluginv1.ReportHealthResponse{}), nil
}

// events are the events of a watch that pours: each is there at once.
type events struct {
	ctx  context.Context
	n    uint64
	rest []byte
}

// Read implements io.Reader.
func (e *events) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	if len(e.rest) == 0 {
		e.n++
		m, _ := proto.Marshal(&connectpluginv1.WatchServiceEvent{
			ServiceType: "store", State: connectpluginv1.ServiceState(1 + e.n%2*2), Sequence: e.n, Epoch: "e",
			Endpoint: &connectpluginv1.ServiceEndpoint{ProviderId: fmt.Sprint("p", e.n), Version: strings.Repeat("9", 2000) + ".0.0"},
		})
		e.rest = envelope(0, m)
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// nobodyKnocks is a listener in memory to which nobody connects.
type nobodyKnocks struct {
	once sync.Once
	done chan struct{}
}

// Accept implements net.Listener.
func (l *nobodyKnocks) Accept() (net.Conn, error) {
	<-l.done
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *nobodyKnocks) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *nobodyKnocks) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// However often a host says something new, its plugin writes a few lines of it and does a bounded number of things, and what it
// writes says how much there was.
func TestAudit_H63_WhatAHostPoursIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, log := &pouring{}, new(hosttest.Buffer)
		ctx, end := context.WithTimeout(t.Context(), 20*time.Second)
		defer end()
		var conns sync.WaitGroup
		err := connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Listener: &nobodyKnocks{done: make(chan struct{})},
			Services: []connectplugin.PluginService{{Type: "own", Version: "1.0.0", Path: "/own/", Handler: http.NotFoundHandler()}},
			Standby:  true,
			Client: connectplugin.ClientConfig{
				HostURL: "http://127.0.0.1", SelfID: "api", HTTPClient: h, AllowInsecure: true, ProtocolVersion: 2,
				Logger: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
				Metadata: connectplugin.PluginMetadata{
					Provides: hosttest.Provides("own"), Requires: []connectplugin.ServiceDependency{{Type: "store", WatchForChanges: true}},
				},
			},
			OnConnected: func(ctx context.Context, c *connectplugin.Client) error {
				conns.Go(func() { _, _ = c.Service(ctx, "store", ">=10000000, <10000001") })
				return nil
			},
		})
		conns.Wait()
		if err != nil {
			t.Error(err)
		}
		if n := h.looks.Load(); n < 20 || n > 600 {
			t.Errorf("%d look-ups", n)
		}
		if n := h.reports.Load(); n < 20 || n > 300 {
			t.Errorf("%d reports", n)
		}
		said := log.String()
		if n := strings.Count(said, "\n"); n < 50 || n > 200 {
			t.Errorf("%d lines", n)
		}
		for line := range strings.Lines(said) {
			if len(line) > 4096 {
				t.Errorf("a line of %d bytes: %.200s", len(line), line)
			}
		}
		for _, what := range []string{
			"the host warns", "a required service changed", "no provider satisfies", "the plugin stands by:", "the plugin stands by no more",
		} {
			if told := strings.Count(said, what); told < 16 || told > 22 {
				t.Errorf("%q has %d lines", what, told)
			}
		}
		if !strings.Contains(said, `"not_logged":`) || strings.Contains(said, `"service":"t1`) {
			t.Errorf("the log has %.4000s", said)
		}
	})
}

// An answer that is larger than a client takes is no refusal of what the client sent.
func TestAudit_H63_ALargeAnswerIsTheHosts(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(func(m *connectpluginv1.HandshakeResponse) {
		m.Warnings = []string{strings.Repeat("long", 2<<20)}
	}))
	err := host.Client(t, nil).Connect(t.Context())
	if !errors.Is(err, connectplugin.ErrHostNotTrusted) || errors.Is(err, connectplugin.ErrHandshakeRefused) ||
		!strings.Contains(err.Error(), "its answer is larger than a client takes") || strings.Contains(err.Error(), "MaxHandshakeBytes") {
		t.Error(err)
	}
}
