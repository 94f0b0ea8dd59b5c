package certs_test

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// wantPanic demands the error of a function that panicked, which says where.
func wantPanic(t *testing.T, of string, err error) {
	t.Helper()

	panicked, ok := errors.AsType[*certs.PanicError](err)
	if !ok || panicked.Of != of || panicked.Value != "boom" || !strings.Contains(string(panicked.Stack), "guard_test.go") {
		t.Errorf("%s: %v", of, err)
	}
}

// No function of a configuration ends the process, whoever calls it.
func TestAudit_USE34_AFunctionOfTheConfigurationPanics(t *testing.T) {
	t.Parallel()

	cfg := &tls.Config{
		MinVersion:           tls.VersionTLS13,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("boom") },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { panic("boom") },
	}

	_, err := certs.AskServer(cfg, "")
	wantPanic(t, certs.OfServer, err)

	if certs.ServerLeafFor(cfg, "name") != nil || certs.ClientLeaf(cfg) != nil {
		t.Error("there is a certificate")
	}

	_, err = certs.Witness(cfg, nil).GetCertificate(&tls.ClientHelloInfo{})
	wantPanic(t, certs.OfServer, err)

	if !errors.Is(err, certs.ErrNoneToShow) {
		t.Errorf("it is no source that failed: %v", err)
	}

	picks := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("boom") }}

	_, err = certs.Witness(picks, nil).GetConfigForClient(&tls.ClientHelloInfo{})
	wantPanic(t, certs.OfConfig, err)

	client, server := net.Pipe()
	defer func() { _ = client.Close() }()

	go func() {
		_ = tls.Client(client, &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "name"}).HandshakeContext(t.Context())
	}()

	err = certs.Agree(t.Context(), tls.Server(server, picks))
	wantPanic(t, "a function of the configuration of TLS", err)
}
