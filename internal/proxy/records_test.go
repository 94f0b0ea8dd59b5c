package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/record"
)

// recorded writes each time what a framer writes at once, with an update of the key now and then.
type recorded struct {
	*record.Writer

	writes, rekeys int // after so many writes the key is updated; zero for never
}

func (r *recorded) Write(p []byte) (int, error) {
	var err error
	if r.writes++; r.rekeys > 0 && r.writes%r.rekeys == 0 {
		err = r.Update()
	}
	n, failed := r.Writer.Write(p)
	return n, errors.Join(err, failed, r.Flush())
}

// newRecorded is a rig whose provider plays with records of TLS.
func newRecorded(t *testing.T, play func(r *recorded, fr *http2.Framer, stream uint32) error) *rig {
	t.Helper()
	checkLeaks(t)
	cert := newServer(t, func(http.ResponseWriter, *http.Request) {}) // for its certificate
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			playRecords(nc, cert.TLS.Certificates, play)
		}
	}()
	g := &rig{results: make(chan proxy.Result, 1000)}
	g.provider = newProvider(t, proxy.Config{Endpoint: endpointOf(t, "https://"+ln.Addr().String()), TLS: &tls.Config{RootCAs: poolOf(cert)}, MaxConns: 1, DialTimeout: patience})
	g.host = newServer(t, func(w http.ResponseWriter, r *http.Request) {
		g.results <- g.provider.Forward(w, r, proxy.Call{Path: r.URL.Path})
	})
	g.client = newClient(t, g.host)
	return g
}

func playRecords(nc net.Conn, certs []tls.Certificate, play func(*recorded, *http2.Framer, uint32) error) {
	defer nc.Close()
	keys := new(record.Keys)
	c := tls.Server(nc, &tls.Config{Certificates: certs, NextProtos: []string{"h2"}, KeyLogWriter: keys, SessionTicketsDisabled: true})
	if c.HandshakeContext(context.Background()) != nil {
		return
	}
	w, err := record.Server(c, keys, 0)
	if err != nil {
		return
	}
	r := &recorded{Writer: w}
	fr := http2.NewFramer(r, c)
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil || fr.WriteSettings() != nil {
		return
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if f.Header().Type == http2.FrameHeaders && play(r, fr, f.Header().StreamID) != nil {
			return
		}
	}
}

// A provider's records of TLS that cost more than their frames explain are counted as those of a caller are: the host is
// the client of its connections, and no frame says anything of them.
func TestAudit_H48_RecordsOfAProviderThatNothingExplains(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reason       string
		size, before int
		more         func(w *record.Writer) error
	}{
		"updates of the key between records of a byte": {"carry nothing", 1, 16, nil},
		"updates of the key between frames":            {"carry nothing", 16 << 10, 16, nil},
		"empty records": {"carry nothing", 16 << 10, 0, func(w *record.Writer) (err error) {
			for range 8 { // in a row TLS takes 16
				err = errors.Join(err, w.Empty())
			}
			return err
		}},
		"records of a byte": {"short TLS records", 1, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRecorded(t, func(r *recorded, fr *http2.Framer, stream uint32) error {
				err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true}) // :status 200
				r.Size, r.Before = tt.size, tt.before
				for i := 0; err == nil && i < 30; i++ { // which the window has room for
					if tt.more != nil {
						err = tt.more(r.Writer)
					}
					if err == nil {
						err = fr.WriteData(stream, i == 29, make([]byte, 1_000))
					}
				}
				return err
			})
			res := g.open(t, unaryType, strings.NewReader("x"))
			_, _ = io.Copy(io.Discard, res.Body)
			if r := g.wantClass(t, proxy.ClassReset); !strings.Contains(r.Err.Error(), tt.reason) {
				t.Errorf("cut off for %v, want %q", r.Err, tt.reason)
			}
		})
	}
}

// An honest provider may write its frames as it likes: head and payload apart, in pieces, and with a new key now and then.
func TestAudit_H48_RecordsOfHonestProviders(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ size, frame, calls, most int }{
		"of nine bytes":              {9, 16 << 10, 400, 36},
		"of 24 bytes":                {24, 16 << 10, 400, 96},
		"as Go begins":               {1_400, 16 << 10, 400, 5_600},
		"as long as they may be":     {16 << 10, 16 << 10, 400, 64 << 10},
		"of nine, and one of a byte": {9, 1, 15, 8_000}, // which its frame explains, and it alone
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			size := func(i int) int { return min(tt.most, 1<<(i%16)) }
			g := newRecorded(t, func(r *recorded, fr *http2.Framer, stream uint32) error {
				r.Size, r.rekeys = tt.size, 200
				if tt.frame == 1 {
					r.rekeys = 0
				}
				body := bytes.Repeat([]byte("x"), size(int(stream/2)))
				err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true})
				for len(body) > 0 && err == nil {
					n := min(len(body), tt.frame)
					err = fr.WriteData(stream, n == len(body), body[:n])
					body = body[n:]
				}
				return err
			})
			for i := range tt.calls {
				if _, got := g.post(t, unaryType, strings.NewReader("x")); len(got) != size(i) {
					t.Fatalf("call %d: %d bytes of %d", i, len(got), size(i))
				}
				g.wantClass(t, proxy.ClassOK)
			}
		})
	}
}
