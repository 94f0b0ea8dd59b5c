package seldom_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/seldom"
)

const most = 20

// sink keeps what is written, for several goroutines.
type sink struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// take returns what was written and begins anew.
func (s *sink) take() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

func logger(out *sink, kinds int) (*slog.Logger, *seldom.Handler) {
	h := seldom.New(slog.NewTextHandler(out, nil), seldom.Config{
		Burst: 3, Every: time.Minute, Kinds: kinds, Key: "service", More: "more",
		Clip: func(s string) string { return s[:min(len(s), most)] },
	})
	return slog.New(h), h
}

// What goes on is written a few times at once, and then once in a while: the latest, with how many there were.
func TestAudit_ATK14_WhatGoesOnIsWrittenSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out sink
		log, h := logger(&out, 100)
		lines := func(want string) {
			t.Helper()
			var got []string
			for line := range strings.Lines(out.take()) {
				_, said, _ := strings.Cut(line, " msg=")
				got = append(got, strings.TrimSpace(said))
			}
			if said := strings.Join(got, "; "); said != want {
				t.Errorf("the log has %q, want %q", said, want)
			}
		}
		for i := range 100 {
			log.Info("on", "service", "a", "n", i)
		}
		log.Info("on", "service", "b")
		log.Warn("on", "service", "a")
		log.Info("off", "service", "a")
		lines("on service=a n=0; on service=a n=1; on service=a n=2; on service=b; on service=a; off service=a")
		time.Sleep(time.Minute)
		lines("on service=a n=99 more=96")
		log.Info("on", "service", "a", "n", 100)
		time.Sleep(time.Minute)
		lines("on service=a n=100")
		time.Sleep(time.Hour) // which is as if nothing had been
		log.With("x", 1).Info("on", "service", "a")
		log.WithGroup("g").Info("on", "service", "a")
		log.Info("on", "service", "a")
		log.With("x", 2).Info("on", "service", "a")
		lines("on x=1 service=a; on g.service=a; on service=a")
		h.Close()
		lines("on x=2 service=a")
		h.Close()
		for range 9 {
			log.Info("on", "service", "a")
		}
		time.Sleep(time.Hour)
		log.Info("on", "service", "a")
		lines("on service=a")
	})
}

// However many kinds there are, and however long a text, memory and log are bounded.
func TestAudit_ATK14_KindsAndTextsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out sink
		log, h := logger(&out, 5)
		defer h.Close()
		many := func() {
			for i := range 1000 {
				log.Info("on", "service", fmt.Sprint(i))
			}
		}
		many()
		if n := strings.Count(out.take(), "\n"); n != 5+3 {
			t.Errorf("%d lines of 1000 kinds", n)
		}
		time.Sleep(time.Hour)
		out.take() // what waited
		many()
		if n := strings.Count(out.take(), "\n"); n != 5+3 {
			t.Errorf("%d lines of 1000 kinds, later", n)
		}
		time.Sleep(time.Hour)
		out.take()
		long := strings.Repeat("x", 1000)
		log.Info("on", "error", errors.New(long), "text", long, "short", errors.New("short"), "n", 7)
		if got := out.take(); !strings.HasSuffix(got, " error="+long[:most]+" text="+long[:most]+" short=short n=7\n") {
			t.Error(got)
		}
	})
}
