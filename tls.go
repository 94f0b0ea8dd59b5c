package connectplugin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// alpnHTTP2 is the one application protocol (RFC 7301) that hosts and plugins speak.
const alpnHTTP2 = "h2"

// alpnNobody is a protocol that no client offers.
const alpnNobody = "connectplugin-needs-h2"

// errNoHTTP2 ends a TLS handshake.
var errNoHTTP2 = errors.New("the peer does not negotiate h2 (ALPN)")

// modernSuites are the TLS 1.2 cipher suites with forward secrecy and
// authenticated encryption. Those of TLS 1.3 all have both.
var modernSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// handshakes are the turns of what is to be computed in the TLS handshakes of this process: those of its hosts, of
// their calls to plugins, and of its plugins.
var handshakes = turns.NewProcess(runtime.GOMAXPROCS(0))

// certificateSource is what renews or reloads a certificate.
type certificateSource interface {
	GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	GetClientCertificate(request *tls.CertificateRequestInfo) (*tls.Certificate, error)
}

// mutualTLS returns a configuration for both roles of TLS: it trusts the pool, shows
// the source's certificate, and accepts the peers that verify accepts; nil means all
// whom the pool verifies.
func mutualTLS(
	source certificateSource, pool *x509.CertPool, clients tls.ClientAuthType, verify peerCheck,
) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpnHTTP2},
		RootCAs:                pool,
		ClientCAs:              pool,
		ClientAuth:             clients,
		GetCertificate:         source.GetCertificate,
		GetClientCertificate:   source.GetClientCertificate,
		VerifyConnection:       verify,
		SessionTicketsDisabled: true,
	}
}

var errChosenCallback = fieldError("TLS.GetConfigForClient", "returns a configuration that verifies clients in a callback "+
	"(RequireAnyClientCert with VerifyPeerCertificate), and TLS does not: set both on TLS too, "+
	"or return one with RequireAndVerifyClientCert and ClientCAs")

// hardenServerTLS returns a copy of cfg that holds the library's policy for a
// server: TLS 1.3 unless 1.2 is asked for, and then forward secrecy with
// authenticated encryption only; h2 and nothing else; no session resumption, so
// that every connection is verified in full. What contradicts the policy is an
// error that names the field and matches ErrInvalidConfig.
func hardenServerTLS(cfg *tls.Config) (*tls.Config, error) {
	if cfg == nil {
		return nil, fieldError("TLS", "is required")
	}

	if len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil {
		return nil, fieldError("TLS", "has no certificate: set Certificates, GetCertificate or GetConfigForClient")
	}

	if cfg.ClientAuth >= tls.VerifyClientCertIfGiven && cfg.ClientCAs == nil {
		return nil, fieldError("TLS.ClientCAs", "is required with TLS.ClientAuth %s: without it "+
			"every public certificate authority could name clients", cfg.ClientAuth)
	}

	hardened, err := hardenTLS(cfg)
	if err != nil {
		return nil, err
	}

	if choose := certs.Guard(certs.OfConfig, cfg.GetConfigForClient); choose != nil {
		hardened.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if err != nil || chosen == nil {
				return nil, err
			}

			if verifiesItself(chosen) && !verifiesItself(cfg) {
				return nil, errChosenCallback
			}

			return hardenServerTLS(chosen)
		}
	}

	return hardened, nil
}

// hardenClientTLS is hardenServerTLS for a client. Nil means the zero tls.Config:
// verified against the system's roots. With pins (see ClientConfig.PinnedKeys) the
// server needs a pinned key besides a valid certificate.
func hardenClientTLS(cfg *tls.Config, pins []string) (*tls.Config, error) {
	if cfg == nil {
		cfg = &tls.Config{}
	}

	if cfg.InsecureSkipVerify && cfg.VerifyConnection == nil && cfg.VerifyPeerCertificate == nil {
		return nil, fieldError("TLS.InsecureSkipVerify", "needs VerifyConnection or VerifyPeerCertificate beside it; "+
			"to trust one certificate, put it into RootCAs")
	}

	pinned, err := certs.ParsePins(pins)
	if err != nil {
		return nil, fmt.Errorf("%w: PinnedKeys%w", ErrInvalidConfig, err)
	}

	hardened, err := hardenTLS(cfg)
	if err != nil {
		return nil, err
	}

	if len(pinned) > 0 {
		hardened.VerifyConnection = verifyAll(hardened.VerifyConnection, certs.VerifyPins(pinned))
	}

	return hardened, nil
}

// hardenTLS applies what servers and clients have in common to a copy of cfg.
func hardenTLS(cfg *tls.Config) (*tls.Config, error) {
	hardened := cfg.Clone()
	if hardened.MinVersion == 0 {
		hardened.MinVersion = tls.VersionTLS13
	}

	if hardened.MinVersion < tls.VersionTLS12 {
		return nil, fieldError("TLS.MinVersion", "%s is too old, the least is TLS 1.2", tls.VersionName(hardened.MinVersion))
	}

	if hardened.MaxVersion != 0 && hardened.MaxVersion < hardened.MinVersion {
		return nil, fieldError("TLS.MaxVersion", "%s is below TLS.MinVersion, %s",
			tls.VersionName(hardened.MaxVersion), tls.VersionName(hardened.MinVersion))
	}

	if hardened.MinVersion == tls.VersionTLS12 {
		suites, err := restrictSuites(hardened.CipherSuites)
		if err != nil {
			return nil, err
		}

		hardened.CipherSuites = suites
	}

	hardened.NextProtos = []string{alpnHTTP2}
	hardened.Renegotiation = tls.RenegotiateNever
	// Resumed connections skip VerifyPeerCertificate and the certificates' expiry;
	// for connections that live as long as ours, resuming saves next to nothing.
	hardened.SessionTicketsDisabled = true
	hardened.ClientSessionCache = nil
	hardened.VerifyConnection = verifyAll(requireHTTP2, requireReadableIdentity, cfg.VerifyConnection)

	hardened.GetCertificate = certs.Guard(certs.OfServer, cfg.GetCertificate)
	hardened.GetClientCertificate = someCertificate(cfg.GetClientCertificate)

	return hardened, nil
}

// someCertificate returns a source of certificates for clients that fails where the given one has none or panics.
func someCertificate(
	source func(*tls.CertificateRequestInfo) (*tls.Certificate, error),
) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if source == nil {
		return nil
	}

	guarded := certs.Guard(certs.OfClient, source)

	return func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := guarded(request)
		if cert == nil && err == nil { // crypto/tls ends the process
			err = errNoClientCertificate
		}

		return cert, err
	}
}

// clientCertificate returns how the host shows its server's certificate to plugins, nil
// where Certificates says it. A source that has none without a name, as ACME managers do, is asked
// for the names of the host.
func clientCertificate(serverTLS *tls.Config, names []string) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if serverTLS.GetClientCertificate != nil || serverTLS.GetCertificate == nil || len(serverTLS.Certificates) > 0 {
		return serverTLS.GetClientCertificate
	}
	return func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		ask := func(name string) (*tls.Certificate, error) {
			return serverTLS.GetCertificate(&tls.ClientHelloInfo{
				ServerName: name, SupportedVersions: []uint16{request.Version}, SignatureSchemes: request.SignatureSchemes,
			})
		}
		cert, err := ask("")
		for _, name := range names {
			if err == nil && cert != nil {
				break
			}
			if net.ParseIP(name) == nil { // TLS asks for no address
				cert, err = ask(name)
			}
		}
		return cert, err
	}
}

// namesMissing says why the names of a host cannot be known from its configuration before a connection is there, empty
// where they can, and in plaintext.
func namesMissing(serverTLS *tls.Config) string {
	switch {
	case serverTLS == nil:
		return ""
	case serverTLS.GetConfigForClient != nil:
		return "TLS.GetConfigForClient chooses the certificate for each client, and requests for other names than those in it are refused"
	}
	const refused = " for a client that names no server, and requests for other names than those in the certificate which a client " +
		"gets are refused"
	switch leaf, err := certs.AskServer(serverTLS, ""); {
	case err != nil:
		return printable("TLS.GetCertificate failed (" + err.Error() + ")" + refused)
	case leaf == nil:
		return "TLS.GetCertificate has no certificate" + refused
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		return "its certificate names no host, so all requests but those for the address listened on are refused"
	}
	return ""
}

// isEverywhere reports whether a host to listen on is every address.
func isEverywhere(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// warnNameless tells the operator of a host that other machines reach at its address and by no name: an Authority makes
// the certificate of a host without names for this machine alone.
func warnNameless(log *slog.Logger, listener net.Addr) {
	at, err := netip.ParseAddrPort(listener.String())
	if err != nil || at.Addr().IsLoopback() {
		return
	}
	log.Warn("no other machine can reach this host: it listens beyond this one, and its certificate, which Authority makes, names "+
		"localhost, 127.0.0.1 and ::1 alone; set ServeConfig.Hosts to all names and addresses under which plugins reach it", keyAddr, at.String())
}

// warnDescriptors tells the operator of a host that it cannot have as many connections as it is to take.
func warnDescriptors(log *slog.Logger, connections int) {
	if most, known := edge.Descriptors(); known && most < uint64(max(connections, 0)) {
		log.Warn(fmt.Sprintf("this process may have %d descriptors, fewer than Limits.MaxConnections (%d), and a connection is one: "+
			"raise its limit (ulimit -n, LimitNOFILE of systemd), or lower the field", most, connections))
	}
}

// slowSource is how long a source of certificates takes before the log says that a start waits for it, and deadSource
// how long the start waits: whoever makes a host has no other way to end it.
const (
	slowSource = 2 * time.Second
	deadSource = 10 * time.Second // after which peers would have given up, too (Limits.ReadHeaderTimeout)
)

// errStartEnded says that a start was ended while it waited.
var errStartEnded = errors.New("ended while the start waited for TLS.GetCertificate")

// askInTime asks a configuration of TLS for its certificate. It says in the log that the start waits for that, where it
// does, and that it is over, and fails where it is not in time, or ctx ends. Then whoever is asked goes on alone.
func askInTime[A any](ctx context.Context, log *slog.Logger, ask func() A) (answer A, err error) {
	began, said := time.Now(), make(chan struct{})
	slow := time.AfterFunc(slowSource, func() {
		defer close(said)
		log.Warn("the start waits for TLS.GetCertificate, which has not answered yet; it goes on when that does", keyWait, slowSource.String())
	})
	answered := make(chan A, 1)
	go func() { answered <- ask() }()
	dead := time.NewTimer(deadSource)
	defer dead.Stop()
	select {
	case answer = <-answered:
	case <-ctx.Done():
		slow.Stop()
		return answer, errStartEnded
	case <-dead.C:
		return answer, fieldError("TLS", "GetCertificate has not answered within %v; have it fail where what it asks is not there", deadSource)
	}
	if !slow.Stop() {
		<-said
		log.Info("TLS.GetCertificate answered; the start goes on", keyWait, time.Since(began).Round(time.Millisecond).String())
	}
	return answer, nil
}

// errNoClientCertificate says that a source of certificates had none, neither an empty one.
var errNoClientCertificate = errors.New("there is no certificate to show for now: GetClientCertificate, or the GetCertificate " +
	"that stands in for it, returned nil")

// restrictSuites returns the cipher suites for TLS 1.2, and refuses a weak one.
func restrictSuites(suites []uint16) ([]uint16, error) {
	if suites == nil {
		return slices.Clone(modernSuites), nil
	}

	for _, suite := range suites {
		if !slices.Contains(modernSuites, suite) && !isTLS13Suite(suite) {
			return nil, fieldError("TLS.CipherSuites", "%s lacks ECDHE or authenticated encryption; leave it out",
				tls.CipherSuiteName(suite))
		}
	}

	return slices.Clone(suites), nil
}

func isTLS13Suite(suite uint16) bool {
	return suite == tls.TLS_AES_128_GCM_SHA256 ||
		suite == tls.TLS_AES_256_GCM_SHA384 ||
		suite == tls.TLS_CHACHA20_POLY1305_SHA256
}

// requireHTTP2 ends the handshake with a peer that negotiated no h2: crypto/tls
// itself lets clients through that offer no protocol, or HTTP/1.1 only.
func requireHTTP2(state tls.ConnectionState) error {
	if state.NegotiatedProtocol != alpnHTTP2 {
		return errNoHTTP2
	}

	return nil
}

// alertNoHTTP2 returns a copy of a server's configuration with which a client that offers
// other protocols and not h2 is told so with the alert of RFC 7301 before anything else.
// crypto/tls alone lets one that offers http/1.1 finish the handshake, and what ends the
// connection then reaches programs like curl as an empty reply.
func alertNoHTTP2(cfg *tls.Config) *tls.Config {
	out, pick := cfg.Clone(), cfg.GetConfigForClient
	out.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		var picked *tls.Config
		if pick != nil {
			var err error
			if picked, err = pick(hello); err != nil {
				return nil, err
			}
		}

		if len(hello.SupportedProtos) == 0 || slices.Contains(hello.SupportedProtos, alpnHTTP2) {
			return picked, nil
		}

		if picked == nil {
			picked = cfg
		}

		refusing := picked.Clone()
		refusing.NextProtos = []string{alpnNobody}

		return refusing, nil
	}

	return out
}

// verifyAll returns a check that runs the given ones until one refuses. Nil ones
// are left out.
func verifyAll(checks ...peerCheck) peerCheck {
	return func(state tls.ConnectionState) error {
		for _, check := range checks {
			if check == nil {
				continue
			}

			if err := check(state); err != nil {
				return err
			}
		}

		return nil
	}
}
