package opening_test

import (
	"io"
	"net"
	"slices"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/opening"
)

var beginnings = map[string]opening.Kind{
	"\x16\x03\x01\x02\x00":                   opening.TLS,
	"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n": opening.ProxyText,
	"PROXY UNKNOWN\r\n":                      opening.ProxyText,
	"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c": opening.ProxyBinary,
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":       opening.HTTP2,
	"GET / HTTP/1.1\r\n\r\n":                 opening.HTTP1,
	"POST /x HTTP/1.0\r\n\r\n":               opening.HTTP1,
	"SSH-2.0-OpenSSH_9.2\r\n":                opening.Other,
	"\x00":                                   opening.Other,
	"\r\n\r\n\x00\r\nQUIX\n":                 opening.Other,
	"PRIVATE":                                opening.Other,
	"PROXYTCP4":                              opening.Other,
	"\x80\x2e\x01\x00\x02":                   opening.Other, // SSL 2
	"G":                                      opening.Other, // and no more
	"PROX":                                   opening.Other,
}

// What a connection begins with is told once, whatever the pieces in which it comes, and
// the reader gets all of it.
func TestListener(t *testing.T) {
	t.Parallel()

	for text, want := range beginnings {
		for _, piece := range []int{1, 3, len(text)} {
			here, there := net.Pipe()
			l := &one{conns: make(chan net.Conn, 1)}
			l.conns <- there

			var told []opening.Kind

			c, err := opening.NewListener(l, func(_ net.Addr, kind opening.Kind) { told = append(told, kind) }).Accept()
			if err != nil {
				t.Fatal(err)
			}

			go func() {
				for rest := []byte(text); len(rest) > 0; rest = rest[min(piece, len(rest)):] {
					_, _ = here.Write(rest[:min(piece, len(rest))])
				}

				_ = here.Close()
			}()

			got, err := io.ReadAll(c)
			if err != nil || string(got) != text {
				t.Errorf("%q in pieces of %d: read %q, %v", text, piece, got, err)
			}

			if !slices.Equal(told, []opening.Kind{want}) {
				t.Errorf("%q in pieces of %d: %q, want %q", text, piece, told, want)
			}
		}
	}
}

// Who says nothing is not spoken of.
func TestListenerSilence(t *testing.T) {
	t.Parallel()

	here, there := net.Pipe()
	l := &one{conns: make(chan net.Conn, 1)}
	l.conns <- there

	c, err := opening.NewListener(l, func(net.Addr, opening.Kind) { t.Error("told") }).Accept()
	if err != nil {
		t.Fatal(err)
	}

	_ = here.Close()

	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("read something")
	}
}

// one is a listener of one connection.
type one struct {
	net.Listener

	conns chan net.Conn
}

func (l *one) Accept() (net.Conn, error) { return <-l.conns, nil }

// FuzzKindOf demands that what is told early stays told.
func FuzzKindOf(f *testing.F) {
	for text := range beginnings {
		f.Add([]byte(text))
	}

	f.Fuzz(func(t *testing.T, b []byte) {
		early, known := opening.Kind(""), false
		for n := range len(b) + 1 {
			kind, ok := opening.KindOf(b[:n])
			if known && (!ok || kind != early) {
				t.Fatalf("%q was %q, and with %d bytes it is %q", b, early, n, kind)
			}

			early, known = kind, ok
		}
	})
}
