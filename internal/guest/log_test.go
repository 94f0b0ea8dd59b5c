package guest_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/guest"
)

// standing is a handler that does not return until it may.
type standing struct {
	freed chan struct{}

	mu    sync.Mutex
	lines []string
}

func (s *standing) Enabled(context.Context, slog.Level) bool { return true }
func (s *standing) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s *standing) WithGroup(string) slog.Handler            { return s }

func (s *standing) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "stands") {
		<-s.freed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	s.lines = append(s.lines, line)
	return nil
}

func (s *standing) written() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

// A handler that does not return holds up who logs for a moment, once; what is logged meanwhile is lost, and counted when it
// is back. The program's default log says so once.
func TestLog_AHandlerThatDoesNotReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := slog.Default()
		defer slog.SetDefault(before)
		said := &standing{}
		slog.SetDefault(slog.New(said))
		to := &standing{freed: make(chan struct{})}
		l := guest.Log("Config.Logger", slog.New(to))
		l.Info("before")
		begun := time.Now()
		var waiting sync.WaitGroup
		for range 1000 { // at once
			waiting.Go(func() { l.Info("stands") })
		}
		waiting.Wait()
		for range 1000 {
			l.With("a", 1).Warn("lost")
			l.Debug("nobody wants it")
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("who logged was held up for %v", took)
		}
		synctest.Wait()
		if got := said.written(); strings.Count(got, "\n") != 0 || !strings.Contains(got, "Config.Logger has not returned") {
			t.Errorf("the default log says %q", got)
		}
		close(to.freed)
		synctest.Wait()
		l.Info("after")
		got := to.written()
		if n := strings.Count(got, "stands"); n == 0 || n > 256 {
			t.Errorf("%d lines were left to the handler", n)
		}
		if !strings.HasPrefix(got, "before\nstands") || !strings.HasSuffix(got, "\nafter") || !strings.Contains(got, "lines are lost not_logged=1") {
			t.Errorf("the log has %q", got)
		}
	})
}

// Who logs waits for its line, as long as the handler is no slower than a terminal.
func TestLog_LinesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	to := &standing{}
	l := guest.Log("Config.Logger", slog.New(to))
	var want []string
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		l.Info(string(c))
		want = append(want, string(c))
	}
	if got := to.written(); got != strings.Join(want, "\n") {
		t.Errorf("the log has %q", got)
	}
}

// BenchmarkLog is what a line costs beside what its handler does.
func BenchmarkLog(b *testing.B) {
	handler := slog.NewJSONHandler(discard{}, nil)
	for name, l := range map[string]*slog.Logger{"guarded": guest.Log("x", slog.New(handler)), "bare": slog.New(handler)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Info("a call", "procedure", "/a/B", "code", "ok")
			}
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
