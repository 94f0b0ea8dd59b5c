package connectplugin

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/guest"
)

const (
	defaultCATTL          = 10 * 365 * 24 * time.Hour
	defaultCertificateTTL = 24 * time.Hour
	leastCertificateTTL   = 3 * time.Second
)

// KeyType selects the kind of private key that an [Authority] makes. The zero
// value is KeyECDSA.
type KeyType uint8

// The kinds of private key.
const (
	KeyECDSA   KeyType = iota // ECDSA on P-256
	KeyEd25519                // Ed25519
)

// AuthorityConfig configures an [Authority]. The zero value is a good one: an
// authority in memory that ends with the process.
type AuthorityConfig struct {
	// Dir is where the authority's certificate and private key are kept. Empty means
	// in memory; LoadAuthority requires it.
	Dir string

	// TrustDomain is the authority part of every identity that is certified:
	// lower-case letters, digits, '.', '-' and '_'. Empty means one that no other
	// authority has in NewAuthority, and whatever was stored in LoadAuthority, which
	// refuses a directory of another trust domain.
	TrustDomain string

	// KeyType is the kind of all new keys.
	KeyType KeyType

	// CATTL is how long a new authority is valid. Zero means ten years. LoadAuthority
	// does not need it: the stored certificate says it.
	CATTL time.Duration

	// CertificateTTL is how long each certificate is valid, at most as long as the
	// authority. Zero means 24 hours; 3 seconds is the least, as times in certificates are whole
	// seconds. Certificates in memory are renewed by themselves when a third of it is left.
	CertificateTTL time.Duration

	// Logger hears about certificates on disk that were renewed, or could not be. Nil
	// means the logger of the host that runs with the authority.
	Logger *slog.Logger
}

// Authority is a small certificate authority for one trust domain: it gives a
// host, its plugins and each launch of a plugin certificates to know each other by
// over mutual TLS, with no other public key infrastructure. Make one with
// [NewAuthority] or [LoadAuthority].
//
// Identities are SPIFFE ids (https://github.com/spiffe/spiffe): the host is
// spiffe://<trust domain>/host, a plugin spiffe://<trust domain>/plugin/<self id>, a
// launch spiffe://<trust domain>/launch/<launch id>. Certificates are valid for both
// roles of TLS, because a host dials plugins and plugins dial the host.
//
// An identity in the trust domain is believed in certificates of this authority alone,
// whatever other authorities a configuration trusts.
//
// The configurations that it returns demand TLS 1.3 and offer h2 alone. Plugins and
// clients accept nobody but the host of their trust domain. An Authority is safe
// for concurrent use.
type Authority struct {
	// Fixed at creation.
	ca      *certs.CA
	keyType certs.KeyType
	ttl     time.Duration
	hostKey crypto.Signer
	logger  *slog.Logger // nil where none is configured

	kept   certs.Keeper                // credentials in files, which a host renews
	hostly atomic.Pointer[slog.Logger] // of the host that does, nil without one

	mu       sync.RWMutex
	launches map[string]certs.Pin // identity of each running launch -> its key
}

// NewAuthority makes a new authority. With a directory it stores it there, in
// authority.crt and authority.key, which only their owner may read, and refuses to
// overwrite what is there already with an error that matches fs.ErrExist. A bad
// field is an error that names it and matches ErrInvalidConfig.
func NewAuthority(config AuthorityConfig) (*Authority, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}

	ca, err := certs.NewCA(config.TrustDomain, config.KeyType.kind(), config.CATTL, time.Now())
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}

	if config.Dir != "" {
		if err := storeAuthority(config.Dir, ca); err != nil {
			return nil, fmt.Errorf("authority: %w", err)
		}
	}

	return newAuthority(config, ca)
}

// LoadAuthority loads the authority that [NewAuthority] stored in a directory. It
// refuses a private key that others can reach or that belongs to another
// certificate, and an authority that has expired. A directory without an authority
// is an error that matches fs.ErrNotExist.
func LoadAuthority(config AuthorityConfig) (*Authority, error) {
	if config.Dir == "" {
		return nil, fieldError("Dir", "is required to load an authority")
	}

	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}

	ca, err := readAuthority(config.Dir, time.Now())
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}

	if wanted := config.TrustDomain; wanted != "" && wanted != ca.TrustDomain() {
		return nil, fieldError("TrustDomain", "%q is not that of the authority in %s, %q; leave it empty",
			wanted, config.Dir, ca.TrustDomain())
	}

	return newAuthority(config, ca)
}

func newAuthority(config AuthorityConfig, ca *certs.CA) (*Authority, error) {
	key, err := certs.NewKey(config.KeyType.kind())
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}

	return &Authority{
		ca:       ca,
		keyType:  config.KeyType.kind(),
		ttl:      config.CertificateTTL,
		hostKey:  key,
		logger:   guest.Log("AuthorityConfig.Logger", config.Logger),
		launches: make(map[string]certs.Pin),
	}, nil
}

// withDefaults returns a checked copy without zero values.
func (c AuthorityConfig) withDefaults() (AuthorityConfig, error) {
	if c.CATTL == 0 {
		c.CATTL = defaultCATTL
	}

	if c.CertificateTTL == 0 {
		c.CertificateTTL = defaultCertificateTTL
	}

	if c.TrustDomain != "" {
		if err := certs.ValidateTrustDomain(c.TrustDomain); err != nil {
			return c, fmt.Errorf("%w: TrustDomain: %w", ErrInvalidConfig, err)
		}
	}

	if c.KeyType > KeyEd25519 {
		return c, fieldError("KeyType", "%d is unknown; use KeyECDSA or KeyEd25519", c.KeyType)
	}

	if c.CATTL < 0 {
		return c, fieldError("CATTL", "%s "+isNegative, c.CATTL)
	}

	return c, checkDuration("CertificateTTL", c.CertificateTTL, leastCertificateTTL)
}

// kind returns the key type as internal/certs calls it.
func (t KeyType) kind() certs.KeyType {
	if t == KeyEd25519 {
		return certs.Ed25519
	}

	return certs.ECDSA
}

// TrustDomain returns the trust domain that the authority certifies for.
func (a *Authority) TrustDomain() string { return a.made().TrustDomain() }

// CertPool returns a new pool that holds the authority's certificate alone.
func (a *Authority) CertPool() *x509.CertPool { return a.made().Pool() }

// HostIdentity returns the identity of hosts: spiffe://<trust domain>/host.
func (a *Authority) HostIdentity() string { return a.hostID().String() }

// PluginIdentity returns the identity of the plugin with a self id:
// spiffe://<trust domain>/plugin/<self id>.
func (a *Authority) PluginIdentity(selfID string) string { return a.pluginID(selfID).String() }

// HostTLS returns what a host serves with and dials plugins with. The certificate
// is valid for the given host names and IP addresses, by default for localhost,
// 127.0.0.1 and ::1; it renews itself and keeps its key, so that a pin holds as long as
// the Authority does (to outlive restarts, pin the authority's key). Clients may
// come without a certificate; one that they bring must be the authority's, and of no
// launch that has ended, or be certified by another authority that is added to ClientCAs, as
// for [MTLSAuth] beside an Authority: then it proves nothing in this trust domain.
func (a *Authority) HostTLS(hosts ...string) (*tls.Config, error) {
	if err := a.check(); err != nil {
		return nil, err
	}

	source, err := a.source(a.hostID(), a.hostKey, hosts)
	if err != nil {
		return nil, err
	}

	return mutualTLS(source, a.CertPool(), tls.VerifyClientCertIfGiven, a.checkPeer), nil
}

// PluginTLS returns what the plugin with a self id serves with and dials its host
// with, in this process. The certificate is valid for the given host names and IP
// addresses, by default for localhost, 127.0.0.1 and ::1, has a key of its own, and
// renews itself. A self id may hold letters, digits, '.', '-' and '_'. For a plugin in
// another process see WriteCredentials.
func (a *Authority) PluginTLS(selfID string, hosts ...string) (*tls.Config, error) {
	if err := a.checkPlugin(selfID); err != nil {
		return nil, err
	}

	source, _, err := a.newSource(a.pluginID(selfID), hosts)
	if err != nil {
		return nil, err
	}

	return a.pluginTLS(source), nil
}

// ClientTLS returns what a client without a certificate dials the host with.
func (a *Authority) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpnHTTP2},
		RootCAs:                a.CertPool(),
		VerifyConnection:       a.requireHost(),
		SessionTicketsDisabled: true,
	}
}

// made returns what certifies. Without it a method panics that returns no error.
func (a *Authority) made() *certs.CA {
	mustBeMade("the Authority", a != nil && a.ca != nil, "NewAuthority or LoadAuthority")

	return a.ca
}

// check is made for methods that return an error.
func (a *Authority) check() error {
	if a == nil || a.ca == nil {
		return fieldError("Authority", "is nil or a zero value; make one with NewAuthority or LoadAuthority")
	}

	return nil
}

// checkPlugin also refuses a self id that no certificate can name.
func (a *Authority) checkPlugin(selfID string) error {
	if err := a.check(); err != nil {
		return err
	}

	if selfID == "" {
		return fieldError("selfID", "is empty; write the plugin's name, the SelfID of its ClientConfig")
	}

	if err := ValidateSelfID(selfID); err != nil {
		return fieldError("selfID", "%v", err)
	}

	return nil
}

// log returns where the authority says what happens to files.
func (a *Authority) log() *slog.Logger {
	if a.logger != nil {
		return a.logger
	}

	if host := a.hostly.Load(); host != nil {
		return host
	}

	return slog.New(slog.DiscardHandler)
}

// serve renews credentials in files until ctx ends.
func (a *Authority) serve(ctx context.Context, log *slog.Logger) {
	a.hostly.Store(log)
	a.kept.Run(ctx)
}

// ownSource is where the authority's own certificate comes from.
func (a *Authority) ownSource() certs.Source {
	return certs.Source{Whose: "the authority", Leaf: a.ca.Certificate, Fixed: true}
}

// pluginTLS returns a configuration for which the host is the only peer.
func (a *Authority) pluginTLS(source certificateSource) *tls.Config {
	return mutualTLS(source, a.CertPool(), tls.RequireAndVerifyClientCert, a.requireHost())
}

func (a *Authority) hostID() certs.ID {
	return certs.ID{TrustDomain: a.TrustDomain(), Role: certs.RoleHost, Name: ""}
}

func (a *Authority) pluginID(selfID string) certs.ID {
	return certs.ID{TrustDomain: a.TrustDomain(), Role: certs.RolePlugin, Name: selfID}
}

// newSource returns a renewing certificate with a new key.
func (a *Authority) newSource(id certs.ID, hosts []string) (*certs.Renewer, crypto.Signer, error) {
	key, err := certs.NewKey(a.keyType)
	if err != nil {
		return nil, nil, fmt.Errorf("authority: %w", err)
	}

	source, err := a.source(id, key, hosts)

	return source, key, err
}

// source returns a renewing certificate for a key.
func (a *Authority) source(id certs.ID, key crypto.Signer, hosts []string) (*certs.Renewer, error) {
	source, err := certs.NewRenewer(a.ca, a.request(id, key, hosts), time.Now())
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", id, err)
	}

	return source, nil
}

func (a *Authority) request(id certs.ID, key crypto.Signer, hosts []string) certs.Request {
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}

	return certs.Request{ID: id, Hosts: slices.Clone(hosts), Key: key, TTL: a.ttl}
}

const (
	making      = time.Minute           // how old the one file may be for the other to come
	makingLook  = 10 * time.Millisecond // between two looks for it
	makingLooks = 100
)

// isComing reports whether a file of an authority is there, and waits a moment for it where the other one is fresh: another
// process may be making both.
func isComing(path, other string) bool {
	info, err := os.Lstat(other)
	if err != nil || time.Since(info.ModTime()).Abs() > making {
		return isThere(path)
	}

	for looks := 0; !isThere(path); looks++ {
		if looks == makingLooks {
			return false
		}

		_ = backoff.Wait(context.Background(), makingLook)
	}

	return true
}

func isThere(path string) bool {
	_, err := os.Lstat(path) //nolint:gosec // the path is the caller's

	return err == nil
}

// trustsItselfAlone reports whether all that a program trusts is its own certificate, which an authority certified.
func trustsItselfAlone(own *x509.Certificate, trusted []*x509.Certificate) bool {
	return own.CheckSignature(own.SignatureAlgorithm, own.RawTBSCertificate, own.Signature) != nil &&
		!slices.ContainsFunc(trusted, func(c *x509.Certificate) bool { return !c.Equal(own) })
}

// noCredentials says what to do about files that are there and are no good.
func noCredentials(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, certs.ErrPermissions) {
		return fmt.Errorf("credentials: %w", err)
	}

	const again = "write tls.crt, tls.key and ca.crt again, with WriteCredentials or as your own authority does, " +
		"and copy all three where this is a copy"

	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	switch now := time.Now(); {
	case !ok || invalid.Reason != x509.Expired || invalid.Cert == nil:
		return fmt.Errorf("credentials: %w; remove what is damaged, %s", err, again)
	case now.Before(invalid.Cert.NotBefore):
		return fmt.Errorf("credentials: %w; it is valid in %s: set the clock of this machine, which may be behind, or of the one that wrote it, "+
			"which may be ahead, and write it again then", err, time.Until(invalid.Cert.NotBefore).Round(time.Second))
	default:
		return fmt.Errorf("credentials: %w; it ended %s ago: %s; or set the clock of this machine, if it is ahead",
			err, now.Sub(invalid.Cert.NotAfter).Round(time.Second), again)
	}
}
