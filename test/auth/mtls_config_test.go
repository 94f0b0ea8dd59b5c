package auth_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

type authRoundTripper func(*http.Request) (*http.Response, error)

func (f authRoundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestMTLSAuth_ConfigureClientTLS(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	auth := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("p")), ca.Pool, nil)
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("never") }
	refused := map[string]*http.Client{
		"nil client":        nil,
		"foreign transport": {Transport: authRoundTripper(nil)},
		"nil transport":     {Transport: (*http.Transport)(nil)},
		"dials by itself":   {Transport: &http.Transport{DialTLSContext: dial}},
		"verifies nothing":  {Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}},
	}
	for name, client := range refused {
		var before http.RoundTripper
		if client != nil {
			before = client.Transport
		}
		if err := auth.ConfigureClientTLS(client); !errors.Is(err, connectplugin.ErrInvalidConfig) {
			t.Errorf("%s: got %v", name, err)
		}
		if client != nil && fmt.Sprintf("%p", client.Transport) != fmt.Sprintf("%p", before) {
			t.Errorf("%s: the transport was replaced", name)
		}
	}
	if err := connectplugin.NewMTLSAuth(nil, ca.Pool, nil).ConfigureClientTLS(&http.Client{}); !errors.Is(err, connectplugin.ErrInvalidConfig) {
		t.Errorf("without a certificate: got %v", err)
	}
}

func TestMTLSAuth_ConfigureClientTLSLeavesSharedTransports(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	auth := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("p")), ca.Pool, nil)
	old := &tls.Config{ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS12}
	shared := &http.Transport{TLSClientConfig: old, MaxIdleConns: 7}
	client := &http.Client{Transport: shared}
	if err := auth.ConfigureClientTLS(client); err != nil {
		t.Fatal(err)
	}
	got, ok := client.Transport.(*http.Transport)
	if !ok || got == shared || shared.TLSClientConfig != old || old.RootCAs != nil || shared.ForceAttemptHTTP2 {
		t.Fatal("the transport that was given changed")
	}
	cfg := got.TLSClientConfig
	if got.MaxIdleConns != 7 || !got.ForceAttemptHTTP2 || cfg.ServerName != "127.0.0.1" || cfg.MinVersion != tls.VersionTLS13 ||
		cfg.MaxVersion != 0 || len(cfg.Certificates) != 1 || !cfg.RootCAs.Equal(ca.Pool) {
		t.Errorf("configured %+v", cfg)
	}
}

func TestMTLSAuth_ConfigureServerTLS(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	if _, err := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("h")), ca.Pool, nil).ConfigureServerTLS(); !errors.Is(err, connectplugin.ErrInvalidConfig) {
		t.Errorf("without client authorities: got %v", err)
	}
	cfg, err := connectplugin.NewMTLSAuth(nil, nil, ca.Pool).ConfigureServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.ClientAuth != tls.RequireAndVerifyClientCert || cfg.MinVersion != tls.VersionTLS13 ||
		len(cfg.NextProtos) != 1 || cfg.NextProtos[0] != "h2" || len(cfg.Certificates) != 0 {
		t.Errorf("configured %+v", cfg)
	}
}
