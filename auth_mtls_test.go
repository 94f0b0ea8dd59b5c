package connectplugin_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// authCA is a certificate authority of these tests.
type authCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthCA(t *testing.T) *authCA {
	t.Helper()
	ca := &authCA{cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	ca.key = newAuthKey(t)
	der, err := x509.CreateCertificate(rand.Reader, ca.cert, ca.cert, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	ca.pool = x509.NewCertPool()
	ca.pool.AddCert(ca.cert)
	return ca
}

func newAuthKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for 127.0.0.1 that serves and calls.
func (ca *authCA) issue(t *testing.T, edit func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x1234), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	edit(template)
	key := newAuthKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func authCommonName(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject.CommonName = name }
}

// startAuthMTLS serves with the configuration as ConfigureServerTLS returned it,
// except for what edit does, and returns the URL.
func startAuthMTLS(t *testing.T, auth *connectplugin.MTLSAuth, handler http.Handler, edit func(*tls.Config)) string {
	t.Helper()
	cfg, err := auth.ConfigureServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(cfg)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return "https://" + ln.Addr().String()
}

func authMTLSClient(t *testing.T, cert *tls.Certificate, roots *x509.CertPool) *http.Client {
	t.Helper()
	client := &http.Client{}
	if err := connectplugin.NewMTLSAuth(cert, roots, nil).ConfigureClientTLS(client); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func TestAudit_PROTO42_AUTH006_IdentityIsTheVerifiedCertificate(t *testing.T) {
	t.Parallel()
	ca, other := newAuthCA(t), newAuthCA(t)
	auth := connectplugin.NewMTLSAuth(ca.issue(t, authCommonName("host")), nil, ca.pool)
	e := &authEcho{}
	mux := e.mux(connectplugin.AuthInterceptor(auth))
	base := startAuthMTLS(t, auth, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.TLS.Version != tls.VersionTLS13 {
			t.Errorf("spoke %v over TLS %#x", r.Proto, r.TLS.Version)
		}
		auth.Middleware(mux).ServeHTTP(w, r)
	}), nil)
	naked := startAuthMTLS(t, auth, mux, nil)

	honest := authMTLSClient(t, ca.issue(t, authCommonName("plugin-a")), ca.pool)
	spoof := http.Header{
		"X-Forwarded-Client-Cert": {"Subject=\"CN=root\""}, "X-Client-Cn": {"root"}, "X-Ssl-Client-S-Dn": {"CN=root"},
	}
	for _, c := range authCalls() {
		got, err := c.call(t.Context(), honest, base, spoof)
		wantAuthAnswer(t, got, err, "mtls:plugin-a")
		_, err = c.call(t.Context(), honest, naked, spoof)
		wantAuthRefused(t, err) // nothing in front shows the certificate
	}

	before := e.calls.Load()
	roots := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}, ForceAttemptHTTP2: true}}
	strangers := map[string]*http.Client{
		"no certificate":      roots,
		"foreign authority":   authMTLSClient(t, other.issue(t, authCommonName("plugin-a")), ca.pool),
		"expired":             authMTLSClient(t, ca.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), ca.pool),
		"for servers only":    authMTLSClient(t, ca.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), ca.pool),
		"does not trust host": authMTLSClient(t, ca.issue(t, authCommonName("plugin-a")), other.pool),
	}
	for name, client := range strangers {
		if _, err := authCallUnary(t.Context(), client, base, nil); err == nil || connect.IsWireError(err) {
			t.Errorf("%s: got %v, want the TLS handshake to fail", name, err)
		}
	}
	if n := e.calls.Load(); n != before {
		t.Errorf("strangers reached the handler %d times", n-before)
	}
}

// A server that only asks for certificates, or that speaks plaintext, has no
// verified one to show.
func TestAudit_PROTO42_UnverifiedIsUnauthenticated(t *testing.T) {
	t.Parallel()
	ca, other := newAuthCA(t), newAuthCA(t)
	auth := connectplugin.NewMTLSAuth(ca.issue(t, authCommonName("host")), nil, ca.pool)
	token := connectplugin.NewTokenAuth("", authValidateGood)
	mux := (&authEcho{}).mux(connectplugin.AuthInterceptor(auth, token, connectplugin.NoAuth()))
	alone := (&authEcho{}).mux(connectplugin.AuthInterceptor(auth))
	forged := authMTLSClient(t, other.issue(t, authCommonName("root")), ca.pool)
	good := authMTLSClient(t, ca.issue(t, authCommonName("plugin-a")), ca.pool)
	none := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}, ForceAttemptHTTP2: true}}
	ask := func(mode tls.ClientAuthType) func(*tls.Config) {
		return func(c *tls.Config) { c.ClientAuth = mode }
	}
	plain := httptest.NewServer(auth.Middleware(alone))
	t.Cleanup(plain.Close)

	tests := []struct {
		name   string
		mode   tls.ClientAuthType
		client *http.Client
		header http.Header
		want   string
	}{
		{"forged, only asked for", tls.RequestClientCert, forged, nil, ""},
		{"forged, any accepted", tls.RequireAnyClientCert, forged, nil, ""},
		{"forged beside a good token", tls.RequestClientCert, forged, bearerHeader(authGoodToken), ""},
		{"none, good token", tls.VerifyClientCertIfGiven, none, bearerHeader(authGoodToken), "token:alice"},
		{"none, bad token", tls.VerifyClientCertIfGiven, none, bearerHeader("bad"), ""},
		{"none at all", tls.VerifyClientCertIfGiven, none, nil, "nobody"},
		{"good", tls.VerifyClientCertIfGiven, good, nil, "mtls:plugin-a"},
	}
	for _, tt := range tests {
		base := startAuthMTLS(t, auth, auth.Middleware(mux), ask(tt.mode))
		for _, c := range authCalls() {
			got, err := c.call(t.Context(), tt.client, base, tt.header)
			if tt.want == "" {
				wantAuthRefused(t, err)
				continue
			}
			wantAuthAnswer(t, got, err, tt.want)
		}
	}
	_, err := authCallUnary(t.Context(), plain.Client(), plain.URL, nil)
	wantAuthRefused(t, err)
}

func TestAudit_AUTH007_CertificatesOfAllShapes(t *testing.T) {
	t.Parallel()
	ca := newAuthCA(t)
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	tests := []struct {
		name string
		edit func(*x509.Certificate)
		want string
	}{
		{"no subject at all", func(*x509.Certificate) {}, ""},
		{"organisation only", func(c *x509.Certificate) { c.Subject.Organization = []string{"o"} }, ""},
		{"other URI only", func(c *x509.Certificate) { c.URIs = []*url.URL{uri("https://x/y")} }, ""},
		{"common name", authCommonName("cn"), "mtls:cn"},
		{"DNS before common name", func(c *x509.Certificate) { c.Subject.CommonName, c.DNSNames = "cn", []string{"a.test", "b.test"} }, "mtls:a.test"},
		{"SPIFFE before DNS", func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames = "cn", []string{"a.test"}
			c.URIs = []*url.URL{uri("spiffe://td/plugin/p")}
		}, "mtls:spiffe://td/plugin/p"},
		{"two SPIFFE ids", func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames = "cn", []string{"a.test"}
			c.URIs = []*url.URL{uri("spiffe://td/plugin/p"), uri("spiffe://td/plugin/q")}
		}, ""},
	}
	auth := connectplugin.NewMTLSAuth(ca.issue(t, authCommonName("host")), nil, ca.pool)
	base := startAuthMTLS(t, auth, auth.Middleware((&authEcho{}).mux(connectplugin.AuthInterceptor(auth))), nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client := authMTLSClient(t, ca.issue(t, tt.edit), ca.pool)
			got, err := authCallUnary(t.Context(), client, base, nil)
			if tt.want == "" {
				wantAuthRefused(t, err)
				return
			}
			wantAuthAnswer(t, got, err, tt.want)
		})
	}
}

func TestMTLSAuth_ExtractIdentity(t *testing.T) {
	t.Parallel()
	ca := newAuthCA(t)
	shared := map[string]string{"serial": "1"}
	tests := []struct {
		name    string
		extract func(*x509.Certificate) (string, map[string]string)
		want    string
		claims  map[string]string
	}{
		{"own", func(c *x509.Certificate) (string, map[string]string) { return "own-" + c.Subject.CommonName, shared }, "mtls:own-p", map[string]string{"serial": "1"}},
		{"names nobody", func(*x509.Certificate) (string, map[string]string) { return "", shared }, "", nil},
		{"panics", func(c *x509.Certificate) (string, map[string]string) { return c.Subject.Organization[0], nil }, "", nil},
		{"default", nil, "mtls:p", map[string]string{"common_name": "p", "serial": "1234", "issuer": "CN=test authority"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			auth := connectplugin.NewMTLSAuth(ca.issue(t, authCommonName("host")), nil, ca.pool)
			auth.ExtractIdentity = tt.extract
			e := &authEcho{observe: func(ctx context.Context, _ http.Header) error {
				claims := connectplugin.GetAuthContext(ctx).Claims
				delete(claims, "not_after")
				if !maps.Equal(claims, tt.claims) {
					return connect.NewError(connect.CodeDataLoss, fmt.Errorf("claims %v", claims))
				}
				claims["serial"] = "altered"
				return nil
			}}
			base := startAuthMTLS(t, auth, auth.Middleware(e.mux(connectplugin.AuthInterceptor(auth))), nil)
			client := authMTLSClient(t, ca.issue(t, authCommonName("p")), ca.pool)
			for range 2 {
				got, err := authCallUnary(t.Context(), client, base, nil)
				if tt.want == "" {
					wantAuthRefused(t, err)
					continue
				}
				wantAuthAnswer(t, got, err, tt.want)
			}
		})
	}
	if shared["serial"] != "1" {
		t.Error("a handler altered the extractor's map")
	}
}

// Alone, without a chain, and as a part of another type it decides alike.
func TestMTLSAuth_AloneAndEmbedded(t *testing.T) {
	t.Parallel()
	ca := newAuthCA(t)
	auth := connectplugin.NewMTLSAuth(ca.issue(t, authCommonName("host")), nil, ca.pool)
	embedded := struct{ *connectplugin.MTLSAuth }{auth}
	client := authMTLSClient(t, ca.issue(t, authCommonName("p")), ca.pool)
	for name, interceptor := range map[string]connect.Interceptor{
		"alone":    auth.ServerInterceptor(),
		"embedded": connectplugin.AuthInterceptor(embedded, connectplugin.NewTokenAuth("", authValidateGood)),
	} {
		mux := (&authEcho{}).mux(interceptor)
		got, err := authCallUnary(t.Context(), client, startAuthMTLS(t, auth, auth.Middleware(mux), nil), nil)
		wantAuthAnswer(t, got, err, "mtls:p")
		naked := startAuthMTLS(t, auth, mux, nil)
		_, err = authCallUnary(t.Context(), client, naked, nil)
		wantAuthRefused(t, err)
		if name == "embedded" { // passed over where there is no certificate
			got, err = authCallUnary(t.Context(), client, naked, bearerHeader(authGoodToken))
			wantAuthAnswer(t, got, err, "token:alice")
		}
	}
}

// A connection can outlive the certificate that it was made with.
func TestMTLSAuth_RefusesCertificatesThatExpiredSince(t *testing.T) {
	t.Parallel()
	ca := newAuthCA(t)
	auth := connectplugin.NewMTLSAuth(nil, nil, ca.pool)
	for _, lifetime := range []time.Duration{-time.Second, time.Minute} {
		leaf := ca.issue(t, func(c *x509.Certificate) {
			c.Subject.CommonName, c.NotAfter = "p", time.Now().Add(lifetime)
		}).Leaf
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.TLS = &tls.ConnectionState{
				HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf},
				VerifiedChains: [][]*x509.Certificate{{leaf, ca.cert}},
			}
			auth.Middleware((&authEcho{}).mux(connectplugin.AuthInterceptor(auth))).ServeHTTP(w, r)
		}))
		t.Cleanup(srv.Close)
		got, err := authCallUnary(t.Context(), srv.Client(), srv.URL, nil)
		if lifetime < 0 {
			wantAuthRefused(t, err)
			continue
		}
		wantAuthAnswer(t, got, err, "mtls:p")
	}
}

type authRoundTripper func(*http.Request) (*http.Response, error)

func (f authRoundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestMTLSAuth_ConfigureClientTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthCA(t)
	auth := connectplugin.NewMTLSAuth(ca.issue(t, authCommonName("p")), ca.pool, nil)
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
	if err := connectplugin.NewMTLSAuth(nil, ca.pool, nil).ConfigureClientTLS(&http.Client{}); !errors.Is(err, connectplugin.ErrInvalidConfig) {
		t.Errorf("without a certificate: got %v", err)
	}
}

func TestMTLSAuth_ConfigureClientTLSLeavesSharedTransports(t *testing.T) {
	t.Parallel()
	ca := newAuthCA(t)
	auth := connectplugin.NewMTLSAuth(ca.issue(t, authCommonName("p")), ca.pool, nil)
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
		cfg.MaxVersion != 0 || len(cfg.Certificates) != 1 || !cfg.RootCAs.Equal(ca.pool) {
		t.Errorf("configured %+v", cfg)
	}
}

func TestMTLSAuth_ConfigureServerTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthCA(t)
	if _, err := connectplugin.NewMTLSAuth(ca.issue(t, authCommonName("h")), ca.pool, nil).ConfigureServerTLS(); !errors.Is(err, connectplugin.ErrInvalidConfig) {
		t.Errorf("without client authorities: got %v", err)
	}
	cfg, err := connectplugin.NewMTLSAuth(nil, nil, ca.pool).ConfigureServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.ClientAuth != tls.RequireAndVerifyClientCert || cfg.MinVersion != tls.VersionTLS13 ||
		len(cfg.NextProtos) != 1 || cfg.NextProtos[0] != "h2" || len(cfg.Certificates) != 0 {
		t.Errorf("configured %+v", cfg)
	}
}
