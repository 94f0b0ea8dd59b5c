package echo

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Trap is a server that nobody should reach.
type Trap struct {
	Recorder

	Addr     string
	Accepted atomic.Int64
}

// NewTrap listens on a free port of an address, with TLS unless cfg is nil.
func NewTrap(t *testing.T, address string, cfg *tls.Config) *Trap {
	t.Helper()
	return NewTrapAt(t, net.JoinHostPort(address, "0"), cfg)
}

// NewTrapAt listens on an address with its port.
func NewTrapAt(t *testing.T, address string, cfg *tls.Config) *Trap {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &Trap{Addr: l.Addr().String()}
	s.Next = Service{}.Handler()
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: s, TLSConfig: forAnybody(cfg), Protocols: &protocols, ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.Accepted.Add(1)
			}
		},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if cfg == nil {
			_ = server.Serve(l)
		} else {
			_ = server.ServeTLS(l, "", "")
		}
	}()
	t.Cleanup(func() { _ = server.Close(); <-served })
	return s
}

// Port is its port, behind a colon.
func (s *Trap) Port() string { return s.Addr[strings.LastIndex(s.Addr, ":"):] }

// forAnybody is a server's configuration that asks clients for nothing.
func forAnybody(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		return nil
	}
	cfg = cfg.Clone()
	cfg.ClientAuth, cfg.VerifyConnection = tls.NoClientCert, nil
	return cfg
}

// EnrolProvider connects a plugin of the first wire version: it registers itself
// and serves by its own means.
func EnrolProvider(t *testing.T, host *hosttest.Host, selfID string) *connectplugin.Client {
	t.Helper()
	return host.Enrol(t, selfID, func(c *connectplugin.ClientConfig) { c.Metadata.Provides = hosttest.Provides(Type) })
}

// Register registers the service echo with the metadata.
func Register(t *testing.T, c *connectplugin.Client, metadata map[string]string) error {
	t.Helper()
	_, err := c.RegistryClient().RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: Type, Version: "1.0.0", EndpointPath: Base, Metadata: metadata,
	}))
	return err
}
