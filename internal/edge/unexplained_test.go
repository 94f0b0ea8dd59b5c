package edge_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/record"
)

// unexplained is what a connection sends before its first request, below every bound of its own.
type unexplained struct {
	times  int
	frame  func(f *http2.Framer) error // nil for records without one
	record func(w *record.Writer) error
	size   int     // of records, zero for as large as they may be
	costs  float64 // frames that nothing explains, each time
}

// Frames and records that neither calls nor data explain wait for one another on all connections of an address for which nobody
// pays, and then on those of all such addresses; and on all of an account.
func TestAudit_H48_WhatNothingExplainsWaitsItsTurn(t *testing.T) {
	t.Parallel()
	const usual, ofOne, conns = 20, 20, 60
	windows := unexplained{times: 1000, frame: func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) }, costs: 1}
	few := windows
	few.times = 15 // beside SETTINGS and what acknowledges the server's
	here := []string{"127.0.0.1"}
	for name, tt := range map[string]struct {
		sends unexplained
		from  []string
		pays  *edge.Account
		part  float64 // of what all of them cost, that the last one waits for
	}{
		"WINDOW_UPDATEs":                    {windows, here, nil, 1},
		"of an account":                     {windows, here, account(1e9, 1e9), 1},
		"of two addresses":                  {windows, []string{"127.0.0.1", "127.0.0.2"}, nil, 0.5},
		"of six addresses":                  {windows, []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"}, nil, 0.5},
		"as few as an honest peer may send": {few, here, nil, 0},
		"PINGs":                             {unexplained{times: 190, frame: func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) }, costs: 1}, here, nil, 1},
		"PRIORITY": {unexplained{times: 450, frame: func(f *http2.Framer) error {
			return f.WritePriority(1, http2.PriorityParam{Weight: 1})
		}, costs: 1}, here, nil, 1},
		"frames of unknown types": {unexplained{times: 45, frame: func(f *http2.Framer) error {
			return f.WriteRawFrame(0xee, 0, 0, nil)
		}, costs: 1}, here, nil, 1},
		"records of a byte":  {unexplained{times: 300, frame: windows.frame, size: 1, costs: 1 + 13 - 2 - 13.0/16}, here, nil, 1},
		"updates of the key": {unexplained{times: 180, record: (*record.Writer).Update, costs: 4}, here, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			atOnce := float64(16 * runtime.GOMAXPROCS(0))
			requests := conns * max(float64(tt.sends.times)*tt.sends.costs-usual, 0) / ofOne * tt.part
			if tt.part > 0 && requests < 2*atOnce {
				t.Skip("so few wait for nobody on so many processors")
			}
			want := time.Duration(max(requests-atOnce, 0) / atOnce * float64(16*time.Millisecond))
			server, client := certificate(t)
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client, account: tt.pays}
				b.serve(t, server)
				close(b.release)
				begun := time.Now()
				for i := range conns {
					b.sendUnexplained(t, tt.from[i%len(tt.from)], tt.sends)
				}
				for b.begun.Load() < conns && time.Since(begun) < time.Minute {
					time.Sleep(time.Millisecond)
					synctest.Wait()
				}
				took := time.Since(begun)
				if took < want*3/4 || took > 2*want+8*time.Millisecond {
					t.Errorf("%d requests begin within %v, want %v", b.begun.Load(), took, want)
				}
			})
		})
	}
}

// What the connections of an address cost is not forgotten when they end, and a newcomer that sends nothing of that kind
// waits for none of it.
func TestAudit_H48_WhoComesAgainGoesOn(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{client: client}
		b.serve(t, server)
		close(b.release)
		windows := unexplained{times: 4_000, frame: func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) }}
		room := 16*runtime.GOMAXPROCS(0)*20/windows.times + 1 // connections after which others wait
		const more = 5
		begun := time.Now()
		for range room + more {
			before := b.begun.Load()
			end := b.sendUnexplained(t, "127.0.0.1", windows)
			for b.begun.Load() == before && time.Since(begun) < time.Minute {
				time.Sleep(time.Millisecond)
				synctest.Wait()
			}
			end()
			synctest.Wait()
		}
		each := time.Duration(float64(windows.times) / 20 / float64(16*runtime.GOMAXPROCS(0)) * float64(16*time.Millisecond))
		if took := time.Since(begun); took < more*each*3/4 {
			t.Errorf("one after the other they take %v, want %v at least", took, more*each)
		}
		windows.times = 3
		for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
			before, came := b.begun.Load(), time.Now()
			b.sendUnexplained(t, from, windows)
			synctest.Wait()
			if took := time.Since(came); b.begun.Load() == before || took > 0 {
				t.Errorf("a newcomer from %s waits %v", from, took)
			}
		}
	})
}

// sendUnexplained sends that and then a request, reads whatever comes, and returns how the connection ends.
func (b *bubble) sendUnexplained(t *testing.T, address string, u unexplained) (end func()) {
	t.Helper()
	keys := new(record.Keys)
	cfg := b.client.Clone()
	cfg.KeyLogWriter = keys
	near, far := net.Pipe()
	b.below.conns <- placed{near, address}
	t.Cleanup(func() { _ = far.Close() })
	c := tls.Client(far, cfg)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	go func() {
		if c.HandshakeContext(t.Context()) != nil {
			return
		}
		w, err := record.Client(c, keys, 0)
		if err != nil {
			t.Error(err)
			return
		}
		go func() { _, _ = io.Copy(io.Discard, c) }()
		f := http2.NewFramer(w, nil)
		_, err = io.WriteString(w, http2.ClientPreface)
		err = errors.Join(err, f.WriteSettings())
		all := bytes.Buffer{}
		w.Size = max(u.size, 0)
		if w.Size == 0 {
			w.Size = 16 << 10
		}
		frames := http2.NewFramer(&all, nil)
		for i := 0; err == nil && i < u.times; i++ {
			if u.frame != nil {
				err = u.frame(frames)
				continue
			}
			if err = u.record(w); err == nil && i%10 == 9 { // TLS takes few of them in a row
				err = f.WriteWindowUpdate(0, 1)
			}
		}
		_, failed := w.Write(all.Bytes())
		w.Size = 16 << 10
		err = errors.Join(err, failed, f.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true,
		}), w.Flush())
		if err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(fmt.Errorf("send: %w", err))
		}
	}()
	return func() { _ = c.NetConn().Close() }
}
