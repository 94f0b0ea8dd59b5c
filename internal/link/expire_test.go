package link_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/link"
)

// pipes is a listener whose connections are pipes, for a bubble.
type pipes struct {
	comes, ends chan net.Conn
	once        sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.comes:
		return c, nil
	case <-p.ends:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.ends) })

	return nil
}

func (*pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// mint makes a certificate that ends after a while.
func mint(t *testing.T, life time.Duration) *tls.Certificate {
	t.Helper()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(life)}

	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}

	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// ending is a server whose certificate ends, and the pool of a client.
type ending struct {
	*link.Pool

	shown atomic.Pointer[tls.Certificate]
	dials int
}

const overtime = time.Minute

// serveEnding starts one in a bubble. A request for "/held" is answered once its connection ends.
func serveEnding(t *testing.T) *ending {
	t.Helper()

	l, e, served := &pipes{comes: make(chan net.Conn), ends: make(chan net.Conn)}, &ending{}, make(chan error, 1)
	server := &http.Server{ReadHeaderTimeout: bound, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
		_, _ = io.WriteString(w, "ok")
	})}
	secured := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return e.shown.Load(), nil },
	}

	go func() { served <- server.Serve(tls.NewListener(l, secured)) }()

	e.Pool = link.New(link.Config{
		Dial: func(ctx context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
			e.dials++
			ours, theirs := net.Pipe()
			l.comes <- theirs
			conn := tls.Client(below(ours), &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, InsecureSkipVerify: true})
			err := conn.HandshakeContext(ctx)

			return conn, err
		},
		DialTimeout: bound, MaxConns: 2, MaxHeaderBytes: 1 << 16, PingAfter: bound, PingTimeout: bound, Overtime: overtime,
		Lost: func(error) {}, Failed: func(error) {},
	})
	t.Cleanup(func() {
		e.Close()

		_ = server.Close()
		<-served
	})

	return e
}

// Requests go over another connection once the certificate has ended that the server showed; those under way go on for a while, and
// end then.
func TestPool_TheCertificateOfTheServerEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const life = time.Hour

		e, ended := serveEnding(t), make(chan error, 1)
		e.shown.Store(mint(t, life))

		held, err := get(t.Context(), e.Pool, "https://server/held")
		if err != nil {
			t.Fatal(err)
		}
		defer held.Body.Close()

		go func() { _, err := io.ReadAll(held.Body); ended <- err }()

		for _, step := range []struct {
			wait  time.Duration
			dials int
			goes  bool
		}{{life - time.Second, 1, true}, {2 * time.Second, 2, true}, {overtime - 2*time.Second, 2, true}, {2 * time.Second, 2, false}} {
			time.Sleep(step.wait)

			if step.dials > e.dials {
				e.shown.Store(mint(t, life))
			}

			if got := text(t, e.Pool, "https://server"); got != "ok" || e.dials != step.dials {
				t.Errorf("after %v: %q over %d connections, want %d", step.wait, got, e.dials, step.dials)
			}

			if synctest.Wait(); (len(ended) == 0) != step.goes {
				t.Errorf("after %v: what was under way goes on: %t", step.wait, !step.goes)
			}
		}

		if err := <-ended; !link.Lost(err) {
			t.Errorf("what was under way ended with %v", err)
		}
	})
}

// A request goes over no connection that leads to another server, and the server hears nothing of it.
func TestPool_AConnectionElsewhere(t *testing.T) {
	t.Parallel()

	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }, 10)
	here := request(t.Context(), t, http.MethodGet, s.URL, http.NoBody)
	dial := dialer(s.Listener.Addr().String())
	p := newPool(t, func(ctx context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
		link.Leads(ctx, here.URL)

		return dial(ctx, below)
	}, 2, nil)

	for range 2 {
		if got := text(t, p, s.URL+"/path"); got != "ok" {
			t.Errorf("got %q", got)
		}

		resp, err := get(t.Context(), p, "http://elsewhere.invalid/")
		if err == nil {
			_ = resp.Body.Close()
		}

		if !errors.Is(err, link.ErrElsewhere) || !link.Unprocessed(err) {
			t.Errorf("a request for elsewhere: %v", err)
		}
	}
}

// Whoever takes a certificate that has ended, by a check of its own, has a connection for more than one request.
func TestPool_ACertificateThatHadEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := serveEnding(t)
		e.shown.Store(mint(t, time.Minute))

		time.Sleep(time.Hour)

		for range 3 {
			if got := text(t, e.Pool, "https://server"); got != "ok" || e.dials != 1 {
				t.Errorf("%q over %d connections", got, e.dials)
			}

			time.Sleep(overtime)
		}
	})
}
