package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// TestAudit_ATK07_UselessProviderIsDialledWithGrowingWaits asks again and again, in
// both ways, for a provider that accepts connections and cannot be used.
func TestAudit_ATK07_UselessProviderIsDialledWithGrowingWaits(t *testing.T) {
	t.Parallel()
	goAway := func(c *playedConn, f http2.Frame) {
		if _, ok := f.(*http2.SettingsFrame); ok {
			go c.locked(func() { _ = c.WriteGoAway(0, http2.ErrCodeNo, nil); _ = c.nc.Close() })
		}
	}
	hangUp := func(c *playedConn, _ http2.Frame) { _ = c.nc.Close() }
	tests := map[string]*played{
		"no streams, going away": {settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}, on: goAway},
		"no streams":             {settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}},
		"going away":             {on: goAway},
		"hanging up":             {on: hangUp},
		"bad settings":           {settings: []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 1}}},
	}
	for name, pd := range tests {
		for _, urgent := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", urgent"}[urgent], func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					pd := &played{settings: pd.settings, on: pd.on}
					// Many, so that it is the waits that keep the dials few.
					p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns = 64 })
					begun := time.Now()
					for time.Since(begun) < 4*time.Minute {
						if r := ask(t.Context(), p, proxy.Call{Urgent: urgent}); r.Class != proxy.ClassUnavailable && r.Class != proxy.ClassReset {
							t.Fatalf("result %+v", r)
						}
						time.Sleep(50 * time.Millisecond)
					}
					if n := pd.dials.Load(); n > 30 || n < 2 {
						t.Errorf("%d dials in four minutes", n)
					}
				})
			})
		}
	}
}

// A provider that answers, and then sends what nothing explains until it is cut off, is dialled again as seldom as one that
// is of no use.
func TestAudit_H48_WhoFloodsIsDialledWithGrowingWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calm atomic.Bool
		pd := &played{on: func(c *playedConn, f http2.Frame) {
			if _, isHead := f.(*http2.HeadersFrame); !isHead {
				return
			}
			c.answer(f.Header().StreamID, "200")
			go c.locked(func() {
				for range 30_000 {
					if calm.Load() || c.WriteWindowUpdate(0, 1) != nil {
						return
					}
				}
			})
		}}
		p := newPlayed(t, pd, nil)
		answered := 0
		for begun := time.Now(); time.Since(begun) < 4*time.Minute; time.Sleep(50 * time.Millisecond) {
			if r := ask(t.Context(), p, proxy.Call{}); r.Class == proxy.ClassOK {
				answered++
			} else if r.Class == proxy.ClassUnavailable && !strings.Contains(r.Err.Error(), "nothing explains") {
				t.Fatalf("result %+v", r)
			}
		}
		if n := pd.dials.Load(); n > 30 || n < 2 || answered < 2 {
			t.Errorf("%d dials in four minutes, %d answers", n, answered)
		}
		calm.Store(true)
		time.Sleep(2 * time.Minute)
		if r := ask(t.Context(), p, proxy.Call{}); r.Class != proxy.ClassOK {
			t.Errorf("when it is calm: %+v", r)
		}
	})
}

// TestAudit_ATK07_SuccessForgets lets a provider be of no use for a while.
func TestAudit_ATK07_SuccessForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{}
		pd.on = func(c *playedConn, f http2.Frame) {
			_, isHead := f.(*http2.HeadersFrame)
			switch {
			case c.dial < 5 || c.dial == 6:
				_ = c.nc.Close()
			case isHead:
				c.answer(f.Header().StreamID, "200")
				if c.dial == 5 {
					_ = c.nc.Close()
				}
			}
		}
		p := newPlayed(t, pd, nil)
		succeed := func() time.Duration {
			begun := time.Now()
			for ask(t.Context(), p, proxy.Call{}).Class != proxy.ClassOK {
				time.Sleep(time.Millisecond)
			}
			return time.Since(begun)
		}
		first := succeed()
		if second := succeed(); second > 100*time.Millisecond || first < 3*second {
			t.Errorf("useful after %v, and again after %v", first, second)
		}
	})
}

// A provider that answers each call and ends its connection then is dialled so often at once, and no faster from then on. No call fails.
func TestAudit_ATK07_ConnectionsOfACallEachArePaced(t *testing.T) {
	t.Parallel()
	const calls, perSecond, burst = 200, 20, 64
	synctest.Test(t, func(t *testing.T) {
		pd := &played{on: func(c *playedConn, f http2.Frame) {
			if _, ok := f.(*http2.HeadersFrame); ok {
				c.answer(f.Header().StreamID, "200")
				_ = c.WriteGoAway(f.Header().StreamID, http2.ErrCodeNo, nil)
			}
		}}
		p := newPlayed(t, pd, nil)
		begun := time.Now()
		for i := range calls {
			if r := ask(t.Context(), p, proxy.Call{}); r.Class != proxy.ClassOK {
				t.Fatalf("call %d: %+v", i, r)
			}
		}
		took, want := time.Since(begun), (calls-burst)*time.Second/perSecond
		if n := pd.dials.Load(); n != calls || took < want-time.Second || took > want+time.Second {
			t.Errorf("%d dials in %v, want %d in %v", n, took, calls, want)
		}
	})
}

// TestAudit_USE11_RefusedConnectionSentNothing has a provider that is not there; it
// is reached soon after it is back.
func TestAudit_USE11_RefusedConnectionSentNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{on: func(c *playedConn, f http2.Frame) {
			if _, ok := f.(*http2.HeadersFrame); ok {
				c.answer(f.Header().StreamID, "200")
			}
		}}
		var back bool
		attempts := 0
		p := newPlayed(t, pd, func(c *proxy.Config) {
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if attempts++; !back {
					return nil, errors.New("connection refused")
				}
				return pd.connect(ctx, network, address)
			}
		})
		for begun := time.Now(); time.Since(begun) < 10*time.Second; {
			if r := ask(t.Context(), p, proxy.Call{}); r.Class != proxy.ClassUnavailable || r.Sent || !r.Retryable || !r.Fault {
				t.Fatalf("result %+v", r)
			}
		}
		if attempts > 200 {
			t.Errorf("%d attempts in ten seconds", attempts)
		}
		back = true
		begun := time.Now()
		if r := ask(t.Context(), p, proxy.Call{}); r.Class != proxy.ClassOK || !r.Sent || time.Since(begun) > 250*time.Millisecond {
			t.Errorf("result %+v after %v", r, time.Since(begun))
		}
	})
}

// TestAudit_USE08_SilentAddressCostsAFraction has a name with two addresses, of which
// one swallows everything: what is dialled, or what is said.
func TestAudit_USE08_SilentAddressCostsAFraction(t *testing.T) {
	t.Parallel()
	for _, accepts := range []bool{false, true} {
		for _, silent := range []string{"::1", "127.0.0.1"} {
			t.Run(silent, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { checkSilentAddress(t, silent, accepts) })
			})
		}
	}
}

func checkSilentAddress(t *testing.T, silent string, accepts bool) {
	t.Helper()
	pd := &played{on: func(c *playedConn, f http2.Frame) {
		if _, ok := f.(*http2.HeadersFrame); ok {
			c.answer(f.Header().StreamID, "200")
		}
	}}
	var swallowed net.Conn
	p := newPlayed(t, pd, func(c *proxy.Config) {
		c.Endpoint = endpointOf(t, "http://example.com:80")
		c.Resolver = resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.1")}, nil
		})
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if !strings.Contains(address, silent) {
				return pd.connect(ctx, network, address)
			}
			if accepts {
				var client net.Conn
				client, swallowed = net.Pipe()
				return client, nil
			}
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
	})
	begun := time.Now()
	if r := ask(t.Context(), p, proxy.Call{}); r.Class != proxy.ClassOK {
		t.Errorf("result %+v", r)
	}
	if took := time.Since(begun); took > 250*time.Millisecond {
		t.Errorf("took %v", took)
	}
	if swallowed != nil {
		if _, err := swallowed.Write([]byte("x")); err == nil {
			t.Error("the other connection is left open")
		}
	}
}

func TestAudit_USE09_ResetsAreMappedAsGRPCDoes(t *testing.T) {
	t.Parallel()
	want := map[http2.ErrCode]uint32{
		http2.ErrCodeCancel: 1, http2.ErrCodeRefusedStream: 14, http2.ErrCodeEnhanceYourCalm: 8,
		http2.ErrCodeInadequateSecurity: 7, http2.ErrCodeNo: 13, http2.ErrCodeProtocol: 13,
		http2.ErrCodeInternal: 13, http2.ErrCodeFlowControl: 13, http2.ErrCodeStreamClosed: 13,
		http2.ErrCodeFrameSize: 13, http2.ErrCodeCompression: 13, http2.ErrCodeHTTP11Required: 13, 0xbeef: 13,
	}
	for code, number := range want {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pd := &played{on: func(c *playedConn, f http2.Frame) {
					if _, ok := f.(*http2.HeadersFrame); ok {
						c.locked(func() { _ = c.WriteRSTStream(f.Header().StreamID, code) })
					}
				}}
				p := newPlayed(t, pd, nil)
				r := ask(t.Context(), p, proxy.Call{})
				if got := proxy.CodeOf(r.Err); got != number {
					t.Errorf("code %d, want %d (%v)", got, number, r.Err)
				}
				refused := code == http2.ErrCodeRefusedStream
				if r.Fault || r.Sent == refused || r.Retryable != refused {
					t.Errorf("result %+v", r)
				}
			})
		})
	}
}

// TestAudit_ATK09_WhatACallerCausesIsNoFault lists what a provider is not blamed for,
// and what it is.
func TestAudit_ATK09_WhatACallerCausesIsNoFault(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		on    func(c *playedConn, stream uint32)
		fault bool
		code  uint32
	}{
		"reset":          {on: func(c *playedConn, id uint32) { c.locked(func() { _ = c.WriteRSTStream(id, http2.ErrCodeInternal) }) }, code: 13},
		"redirect":       {on: func(c *playedConn, id uint32) { c.answer(id, "302") }, code: 14},
		"malformed":      {on: func(c *playedConn, id uint32) { c.answer(id, "xxx") }, code: 14},
		"large response": {on: func(c *playedConn, id uint32) { c.answer(id, strings.Repeat("2", 2<<10)) }, code: 8},
		"calm": {on: func(c *playedConn, _ uint32) {
			c.locked(func() { _ = c.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, nil); _ = c.nc.Close() })
		}, code: 14},
		"hanging up": {on: func(c *playedConn, _ uint32) { _ = c.nc.Close() }, fault: true, code: 14},
		"nonsense":   {on: func(c *playedConn, _ uint32) { c.locked(func() { _ = c.WriteRawFrame(http2.FrameData, 0, 0, nil) }) }, fault: true, code: 14},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pd := &played{on: func(c *playedConn, f http2.Frame) {
					if _, ok := f.(*http2.HeadersFrame); ok {
						test.on(c, f.Header().StreamID)
					}
				}}
				r := ask(t.Context(), newPlayed(t, pd, func(c *proxy.Config) { c.MaxHeaderBytes = 1 << 10 }), proxy.Call{})
				if r.Err == nil || r.Fault != test.fault || proxy.CodeOf(r.Err) != test.code {
					t.Errorf("result %+v, code %d", r, proxy.CodeOf(r.Err))
				}
			})
		})
	}
}

// TestAudit_USE04_TooLargeIsToldAndSentNowhere has a provider with a small limit.
func TestAudit_USE04_TooLargeIsToldAndSentNowhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxHeaderListSize, Val: 100}}}
		p := newPlayed(t, pd, nil)
		r := ask(t.Context(), p, proxy.Call{})
		if r.Class != proxy.ClassUnavailable || !errors.Is(r.Err, h2.ErrTooLarge) || r.Sent || r.Fault || r.Retryable || proxy.CodeOf(r.Err) != 8 {
			t.Errorf("result %+v", r)
		}
	})
}

// TestAudit_USE02_GoAwayIsLogged looks at what the log gets of a provider's words.
func TestAudit_USE02_GoAwayIsLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{on: func(c *playedConn, f http2.Frame) {
			if _, ok := f.(*http2.HeadersFrame); ok {
				c.locked(func() { _ = c.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings\nlevel=INFO")) })
			}
		}}
		var log lockedBuffer
		p := newPlayed(t, pd, func(c *proxy.Config) {
			c.Logger, c.Name = slog.New(slog.NewTextHandler(&log, nil)), "unix:/run/plugin"
		})
		ask(t.Context(), p, proxy.Call{})
		synctest.Wait()
		if got := log.String(); !strings.Contains(got, "ENHANCE_YOUR_CALM") || !strings.Contains(got, "too_many_pings") || strings.Contains(got, "\nlevel=INFO") ||
			!strings.Contains(got, "endpoint=unix:/run/plugin ") {
			t.Errorf("log %q", got)
		}
	})
}

// TestAudit_H32_GoAwaysFillNoLog has a provider that answers and leaves, again and again.
func TestAudit_H32_GoAwaysFillNoLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{on: func(c *playedConn, f http2.Frame) {
			if _, ok := f.(*http2.HeadersFrame); ok {
				c.answer(f.Header().StreamID, "200")
				c.locked(func() { _ = c.WriteGoAway(f.Header().StreamID, http2.ErrCodeInternal, []byte("again")) })
			}
		}}
		var log lockedBuffer
		p := newPlayed(t, pd, func(c *proxy.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		leave := func(times int) {
			for range times {
				ask(t.Context(), p, proxy.Call{})
				synctest.Wait()
			}
		}
		leave(30)
		if n := strings.Count(log.String(), "text=again"); n != 1 {
			t.Errorf("%d lines of 30 departures", n)
		}
		time.Sleep(time.Minute)
		leave(1)
		if got := log.String(); strings.Count(got, "text=again") != 2 || !strings.Contains(got, "not_logged=29") {
			t.Errorf("a minute later: %q", got)
		}
	})
}

// lockedBuffer is a buffer for several writers.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
