package h2_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// enforced is what gRPC servers allow: no ping within this time of another.
const enforced = 5 * time.Minute

func quietConfig() h2.Config {
	cfg := config()
	cfg.PingInterval, cfg.PingTimeout = 30*time.Second, 10*time.Second
	return cfg
}

func TestAudit_USE02_QuietStreamIsNotPingedToDeath(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, quietConfig())
		s, _ := open(t, c, get)
		p.want(http2.FrameHeaders)
		pings, last := 0, time.Now().Add(-enforced)
		end := time.After(time.Hour)
		for over := false; !over; {
			select {
			case f := <-p.frames:
				if f.Type != http2.FramePing {
					t.Fatalf("frame %v", f)
				}
				if gap := time.Since(last); gap < enforced {
					t.Errorf("ping %v after another", gap)
				}
				pings, last = pings+1, time.Now()
				p.must(p.fr.WritePing(true, [8]byte(f.payload)))
			case <-end:
				over = true
			}
		}
		if pings == 0 {
			t.Error("nobody looks whether the server is there")
		}
		p.headers(1, true, ":status", "200")
		if _, _, err := s.Head(); err != nil {
			t.Errorf("after an hour: %v", err)
		}
	})
}

func TestAudit_USE02_NoPingWithoutStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := quietConfig()
		cfg.IdleTimeout = 10 * time.Hour
		c, p := pipe(t, cfg)
		s, _ := open(t, c, get)
		p.want(http2.FrameHeaders)
		p.headers(1, true, ":status", "200")
		if _, _, err := s.Head(); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if n := len(p.frames); n > 0 || !c.Usable() {
			t.Errorf("%d frames, usable %v", n, c.Usable())
		}
	})
}

// TestAudit_USE02_DeadServerIsNoticed lets a server die, after some life, that
// still takes in what is written.
func TestAudit_USE02_DeadServerIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, quietConfig())
		s, _ := open(t, c, get)
		p.want(http2.FrameHeaders)
		p.must(p.fr.WritePing(true, [8]byte((<-p.frames).payload)))
		begun := time.Now()
		if err := failure(s); !errors.Is(err, h2.ErrPing) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begun); took > 2*enforced {
			t.Errorf("took %v", took)
		}
	})
}

// TestAudit_USE02_ServerThatDoesNotReadIsGivenUp has a server speak and not listen.
func TestAudit_USE02_ServerThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		stuck := &stuckConn{Conn: client, stop: make(chan struct{})}
		c, p := handshake(t, quietConfig(), stuck, server)
		stuck.block.Store(true)
		opened := make(chan *h2.Stream, 1)
		go func() {
			s, _, _ := c.Open(get)
			opened <- s
		}()
		for c.Usable() {
			_ = p.fr.WriteWindowUpdate(0, 1) // it is alive
			time.Sleep(time.Second)
		}
		s := <-opened
		defer s.Close()
		if err := failure(s); !errors.Is(err, h2.ErrLost) {
			t.Errorf("error %v", err)
		}
	})
}

func TestAudit_USE02_WhatGoAwaySaysIsPassedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		said := make(chan *h2.GoAwayError, 100)
		cfg := config()
		cfg.Away = func(e *h2.GoAwayError) { said <- e }
		c, p := pipe(t, cfg)
		s, _ := open(t, c, get)
		p.want(http2.FrameHeaders)
		text := "too_many_pings\n\x1b[2J" + strings.Repeat("x", 4<<10)
		p.must(p.fr.WriteGoAway(1, http2.ErrCodeNo, nil))
		for range 50 {
			p.must(p.fr.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte(text)))
		}
		_ = p.nc.Close()
		err := failure(s)
		var away *h2.GoAwayError
		if !errors.As(err, &away) || away.Code != http2.ErrCodeEnhanceYourCalm || !strings.HasPrefix(away.Text, "too_many_pings") {
			t.Fatalf("error %v", err)
		}
		if text := err.Error(); len(text) > 1000 || strings.ContainsAny(text, "\n\x1b") || !strings.Contains(text, "ENHANCE_YOUR_CALM") {
			t.Errorf("text %q", text)
		}
		synctest.Wait()
		if len(said) != 2 {
			t.Errorf("said %d times", len(said))
		}
	})
}

// A server that says that it cannot go on answers nothing more, whether it closes the connection or not.
func TestAudit_USE07_AServerThatCannotGoOnIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, config())
		s, _ := open(t, c, get)
		p.want(http2.FrameHeaders)
		said := time.Now()
		p.must(p.fr.WriteGoAway(1, http2.ErrCodeCompression, nil))
		var away *h2.GoAwayError
		if err := failure(s); !errors.As(err, &away) || away.Code != http2.ErrCodeCompression || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(said); took > 2*time.Second {
			t.Errorf("it fails after %v", took)
		}
	})
}
