package edge_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"strconv"
	"strings"
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
	head   int     // bytes of the head of its request, beside those of every one
}

// Frames and records that neither calls nor data explain wait for one another on all connections of an address for which nobody
// pays, and then on those of all such addresses; and on all of an account.
func TestAudit_H48_WhatNothingExplainsWaitsItsTurn(t *testing.T) {
	t.Parallel()
	const usual, ofOne, read, conns = 20, 20, 4, 60
	windows := unexplained{times: 600, frame: func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) }, costs: 1}
	const plain, longOfOne = 1 << 10, 4 << 10 // bytes of heads
	long := unexplained{head: 15_000}
	few := windows
	few.times = 10 // beside SETTINGS and what acknowledges the server's
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
		"long heads":                        {long, here, nil, 1},
		"long heads of six addresses":       {long, []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"}, nil, 0.5},
		"long heads of an account":          {long, here, account(1e9, 1e9), 0},
		"PINGs":                             {unexplained{times: 190, frame: func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) }, costs: 1}, here, nil, 1},
		"PRIORITY": {unexplained{times: 450, frame: func(f *http2.Framer) error {
			return f.WritePriority(1, http2.PriorityParam{Weight: 1})
		}, costs: 1}, here, nil, 1},
		"frames of unknown types": {unexplained{times: 48, frame: func(f *http2.Framer) error {
			return f.WriteRawFrame(0xee, 0, 0, nil)
		}, costs: 1}, here, nil, 1},
		"records of a byte":  {unexplained{times: 100, frame: windows.frame, size: 1, costs: 1 + 4 + 4*(13-2-13.0/16)}, here, nil, 1},
		"updates of the key": {unexplained{times: 120, record: (*record.Writer).Update, costs: 8}, here, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			atOnce := float64(16 * runtime.GOMAXPROCS(0))
			each := float64(tt.sends.times)*tt.sends.costs + read*math.Ceil(float64(13*tt.sends.times)/(16<<10))
			requests := conns * (max(each-usual, 0)/ofOne + float64(max(tt.sends.head-plain, 0))/longOfOne) * tt.part
			if tt.part > 0 && requests < 2*atOnce {
				t.Skip("so few wait for nobody on so many processors")
			}
			want := time.Duration(max(requests-atOnce, 0) / atOnce * float64(16*time.Millisecond))
			server, client := certificate(t)
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client, account: tt.pays, ahead: 16 << 10}
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
				if took < want*3/4 || took > 2*want+50*time.Millisecond {
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
		b := &bubble{client: client, ahead: 16 << 10}
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

// A newcomer that sends a little of that kind, as every client does, does not wait for what others owe at other addresses.
func TestAudit_H48_ALittleWaitsForNobody(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{client: client, ahead: 16 << 10}
		b.serve(t, server)
		close(b.release)
		windows := unexplained{times: 4_000, frame: func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) }}
		for i := range 20 * runtime.GOMAXPROCS(0) { // worth two seconds
			b.sendUnexplained(t, fmt.Sprint("127.0.1.", 1+i%4), windows)
		}
		synctest.Wait()
		windows.times = 20
		before, came := b.begun.Load(), time.Now()
		b.sendUnexplained(t, "127.0.0.2", windows)
		for b.begun.Load() == before && time.Since(came) < time.Minute {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		if took := time.Since(came); took > 100*time.Millisecond {
			t.Errorf("a newcomer waits %v", took)
		}
	})
}

// A record of TLS that comes a few bytes at a time takes as long to read as many records, and what neither calls nor data explain of
// that is cut off; one that comes in pieces as a slow network makes them is not.
func TestAudit_H48_ARecordInPieces(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	for piece, cut := range map[int]bool{1: true, 2: true, 400: false, 1400: false} {
		t.Run(strconv.Itoa(piece), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client, ahead: 16 << 10}
				b.serve(t, server)
				close(b.release)
				near, far := net.Pipe()
				b.below.conns <- placed{near, "127.0.0.1"}
				defer func() { _ = far.Close() }()
				slow := &piecewise{Conn: far}
				c := tls.Client(slow, b.client)
				if err := c.HandshakeContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				go func() { _, _ = io.Copy(io.Discard, c) }()
				var out bytes.Buffer
				f := http2.NewFramer(&out, nil)
				out.WriteString(http2.ClientPreface)
				err := errors.Join(f.WriteSettings(), f.WriteRawFrame(0xee, 0, 0, make([]byte, 14_000)))
				if _, failed := c.Write(out.Bytes()); err != nil || failed != nil {
					t.Fatal(err, failed)
				}
				slow.size = piece
				for range 10 {
					out.Reset()
					_ = f.WriteRawFrame(0xee, 0, 0, make([]byte, 14_000))
					if _, err = c.Write(out.Bytes()); err != nil {
						break
					}
				}
				synctest.Wait()
				if cut != (err != nil) {
					t.Errorf("in pieces of %d bytes: %v, want it cut off: %t", piece, err, cut)
				}
			})
		})
	}
}

// A TLS handshake that comes in very many pieces is read a few times a second, and one that comes as usual at once.
func TestAudit_H48_ATLSHandshakeInPieces(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	for piece, waits := range map[int]bool{1: true, 536: false} {
		t.Run(strconv.Itoa(piece), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client}
				b.serve(t, server)
				close(b.release)
				near, far := net.Pipe()
				b.below.conns <- placed{near, "127.0.0.1"}
				defer func() { _ = far.Close() }()
				begun := time.Now()
				err := tls.Client(&piecewise{Conn: far, size: piece}, b.client).HandshakeContext(t.Context())
				if took := time.Since(begun); err != nil || waits && took < 10*time.Second || !waits && took > time.Second {
					t.Errorf("in pieces of %d bytes it takes %v, %v", piece, took, err)
				}
			})
		})
	}
}

// piecewise writes so many bytes at a time; zero is all of them.
type piecewise struct {
	net.Conn

	size int
}

func (p *piecewise) Write(b []byte) (n int, err error) {
	for size := p.size; err == nil && n < len(b); {
		var wrote int
		if size == 0 {
			size = len(b)
		}
		wrote, err = p.Conn.Write(b[n:min(n+size, len(b))])
		n += wrote
	}
	return n, err
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
	if u.head > 0 { // of what Huffman's code makes no shorter
		_ = enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("&", u.head), Sensitive: true})
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
