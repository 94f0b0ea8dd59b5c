package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

const domain = "example.test"

func newCA(tb testing.TB, kind certs.KeyType, ttl time.Duration, now time.Time) *certs.CA {
	tb.Helper()

	ca, err := certs.NewCA(domain, kind, ttl, now)
	if err != nil {
		tb.Fatalf("NewCA: %v", err)
	}

	return ca
}

func pluginID(name string) certs.ID {
	return certs.ID{TrustDomain: domain, Role: certs.RolePlugin, Name: name}
}

func newRequest(tb testing.TB, id certs.ID, ttl time.Duration) certs.Request {
	tb.Helper()

	key, err := certs.NewKey(certs.ECDSA)
	if err != nil {
		tb.Fatalf("NewKey: %v", err)
	}

	return certs.Request{ID: id, Hosts: []string{"localhost", "127.0.0.1", "::1"}, Key: key, TTL: ttl}
}

func issue(tb testing.TB, ca *certs.CA, request certs.Request, now time.Time) *tls.Certificate {
	tb.Helper()

	cert, err := ca.Issue(request, now)
	if err != nil {
		tb.Fatalf("Issue: %v", err)
	}

	return cert
}

// serveTLS answers every connection with one byte after the handshake, and returns the address.
func serveTLS(tb testing.TB, config *tls.Config) string {
	tb.Helper()

	var listen net.ListenConfig

	listener, err := listen.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("listen: %v", err)
	}

	done := make(chan struct{})

	go func() {
		defer close(done)

		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}

			go func() {
				defer func() { _ = conn.Close() }()

				if server := tls.Server(conn, config); server.HandshakeContext(context.Background()) == nil {
					_, _ = server.Write([]byte{1})
				}
			}()
		}
	}()

	tb.Cleanup(func() {
		_ = listener.Close()
		<-done
	})

	return listener.Addr().String()
}

// dialTLS makes a handshake that both sides have finished, and returns the server's certificate.
func dialTLS(ctx context.Context, address string, config *tls.Config) (*x509.Certificate, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}

	config = config.Clone()
	config.ServerName = "127.0.0.1"
	conn := tls.Client(raw, config)
	defer func() { _ = conn.Close() }()

	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return nil, err
	}

	return conn.ConnectionState().PeerCertificates[0], nil
}
