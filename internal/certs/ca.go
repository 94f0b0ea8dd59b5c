package certs

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// ClockSkew is how far a new certificate is backdated, so that a peer whose
	// clock is a little behind accepts it: as far as a handshake lets it be unless it is told otherwise.
	ClockSkew = 2 * time.Minute

	serialBytes = 16
	maxDNSName  = 253
)

// Errors of a [CA].
var (
	// ErrCA is returned for a certificate and key that are no usable authority.
	ErrCA = errors.New("unusable certificate authority")
	// ErrHost is returned for a host that is neither an IP address nor a DNS name.
	ErrHost = errors.New("invalid host")
	// ErrTTL is returned for a lifetime that is not positive.
	ErrTTL = errors.New("lifetime is not positive")
)

// CA is a certificate authority without intermediates: a self-signed certificate
// that names its trust domain, and its key. It is safe for concurrent use.
type CA struct {
	// Fixed at creation.
	cert        *x509.Certificate
	key         crypto.Signer
	trustDomain string

	mu     sync.RWMutex
	issued map[[sha256.Size]byte]struct{} // digests of certificates that it signed, as far as somebody asked
}

// maxIssued bounds what an authority remembers of the certificates that it signed.
const maxIssued = 16_384

// NewCA makes an authority with a new key, valid for ttl from now. An empty trust
// domain means one that is derived from the key, which no other authority has.
func NewCA(trustDomain string, kind KeyType, ttl time.Duration, now time.Time) (*CA, error) {
	if ttl <= 0 {
		return nil, fmt.Errorf("%w: %s", ErrTTL, ttl)
	}

	key, err := NewKey(kind)
	if err != nil {
		return nil, err
	}

	if trustDomain == "" {
		if trustDomain, err = keyDomain(key.Public()); err != nil {
			return nil, err
		}
	}

	if err := ValidateTrustDomain(trustDomain); err != nil {
		return nil, err
	}

	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{Organization: []string{trustDomain}, CommonName: "connect-plugin authority"},
		NotBefore:             now.Add(-ClockSkew),
		NotAfter:              now.Add(ttl),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{{Scheme: spiffeScheme, Host: trustDomain}},
	}

	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}

	return &CA{cert: cert, key: key, trustDomain: trustDomain}, nil
}

// ParseCA reads an authority that [CA.CertificatePEM] and [CA.KeyPEM] wrote, and
// refuses one whose key is another, whose time is over, or that may not sign.
func ParseCA(certPEM, keyPEM []byte, now time.Time) (*CA, error) {
	list, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, err
	}

	if len(list) != 1 {
		return nil, fmt.Errorf("%w: %d certificates instead of one", ErrCA, len(list))
	}

	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, err
	}

	cert := list[0]
	if err := checkCA(cert, key, now); err != nil {
		return nil, err
	}

	domain, err := AuthorityDomain(cert)
	if err != nil {
		return nil, err
	}

	return &CA{cert: cert, key: key, trustDomain: domain}, nil
}

// checkCA refuses a certificate that cannot sign with the given key now.
func checkCA(cert *x509.Certificate, key crypto.Signer, now time.Time) error {
	type equaler interface {
		Equal(other crypto.PublicKey) bool
	}

	public, ok := key.Public().(equaler)

	switch {
	case !ok || !public.Equal(cert.PublicKey):
		return fmt.Errorf("%w: the private key belongs to another certificate", ErrCA)
	case !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%w: the certificate may not sign others", ErrCA)
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%w: not valid before %s; is the clock of this machine right?", ErrCA, cert.NotBefore.UTC().Format(time.RFC3339))
	case now.After(cert.NotAfter):
		return fmt.Errorf("%w: expired on %s", ErrCA, cert.NotAfter.UTC().Format(time.RFC3339))
	default:
		return nil
	}
}

// TrustDomain returns the trust domain that the authority certifies for.
func (c *CA) TrustDomain() string { return c.trustDomain }

// Certificate returns the authority's certificate, which is read-only.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// Issued reports whether this authority signed a certificate. It looks neither at the
// time nor at what the certificate may be used for. That it did is found out once: the same
// certificate comes with each connection of its owner, and several ask for each.
func (c *CA) Issued(cert *x509.Certificate) bool {
	digest := signedDigest(cert)

	c.mu.RLock()
	_, known := c.issued[digest]
	c.mu.RUnlock()

	if known || cert.CheckSignatureFrom(c.cert) != nil {
		return known
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	if c.issued == nil || len(c.issued) >= maxIssued {
		c.issued = make(map[[sha256.Size]byte]struct{})
	}

	c.issued[digest] = struct{}{}

	return true
}

// signedDigest is the digest of all that a check of a certificate's signature looks at.
func signedDigest(cert *x509.Certificate) (digest [sha256.Size]byte) {
	h := sha256.New()

	for _, part := range [][]byte{[]byte(cert.SignatureAlgorithm.String()), cert.RawTBSCertificate, cert.Signature} {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		_, _ = h.Write(part)
	}

	h.Sum(digest[:0])

	return digest
}

// Pool returns a new pool that holds the authority's certificate alone.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)

	return pool
}

// CertificatePEM returns the authority's certificate as PEM.
func (c *CA) CertificatePEM() []byte { return EncodeCertificates(c.cert.Raw) }

// KeyPEM returns the authority's private key as PEM.
func (c *CA) KeyPEM() ([]byte, error) { return EncodeKey(c.key) }

// Request says what a certificate shall be.
type Request struct {
	ID    ID            // whose it is; its trust domain must be the authority's
	Hosts []string      // IP addresses and DNS names it is valid for as a server; may be empty
	Key   crypto.Signer // its private key
	TTL   time.Duration // lifetime from now, cut to the authority's own
}

// Issue makes a certificate for both roles of TLS, server and client, with its
// Leaf parsed and the key inside.
func (c *CA) Issue(r Request, now time.Time) (*tls.Certificate, error) {
	if err := c.check(r, now); err != nil {
		return nil, err
	}

	uri, err := url.Parse(r.ID.String())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}

	notAfter := now.Add(r.TTL)
	if notAfter.After(c.cert.NotAfter) {
		notAfter = c.cert.NotAfter
	}

	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{Organization: []string{c.trustDomain}, CommonName: string(r.ID.Role)},
		NotBefore:             now.Add(-ClockSkew),
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{uri},
	}

	addHosts(template, r.Hosts)

	leaf, err := sign(template, c.cert, r.Key.Public(), c.key)
	if err != nil {
		return nil, err
	}

	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: r.Key, Leaf: leaf}, nil
}

// check refuses a request that this authority cannot fulfil now.
func (c *CA) check(r Request, now time.Time) error {
	if err := r.ID.Validate(); err != nil {
		return err
	}

	if r.ID.TrustDomain != c.trustDomain {
		return fmt.Errorf("%w: %s is outside of trust domain %.256q", ErrIdentity, r.ID, c.trustDomain)
	}

	if r.TTL <= 0 {
		return fmt.Errorf("%w: %s", ErrTTL, r.TTL)
	}

	for _, host := range r.Hosts {
		if net.ParseIP(host) == nil && !isDNSName(host) {
			return fmt.Errorf("%w: %.256q is neither an IP address nor a DNS name; write it without scheme, brackets and port", ErrHost, host)
		}
	}

	if !now.Before(c.cert.NotAfter) {
		return fmt.Errorf("%w: expired on %s", ErrCA, c.cert.NotAfter.UTC().Format(time.RFC3339))
	}

	return nil
}

// isDNSName reports whether s is a host name that a TLS client can ask for.
func isDNSName(s string) bool {
	if s == "" || len(s) > maxDNSName {
		return false
	}

	for label := range strings.SplitSeq(s, ".") {
		if label == "" || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}

		for i := range len(label) {
			if !isNameByte(label[i]) {
				return false
			}
		}
	}

	return true
}

// addHosts makes a certificate valid for hosts, for each of them once.
func addHosts(template *x509.Certificate, hosts []string) {
	for _, host := range hosts {
		ip := net.ParseIP(host)

		switch {
		case ip == nil && !slices.Contains(template.DNSNames, host):
			template.DNSNames = append(template.DNSNames, host)
		case ip != nil && !slices.ContainsFunc(template.IPAddresses, ip.Equal):
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	}
}

// sign makes a certificate and reads it back.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}

	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}

	return cert, nil
}

// newSerial returns a positive number of 128 random bits.
func newSerial() *big.Int {
	var b [serialBytes]byte
	rand.Read(b[:]) // never fails: the program ends instead

	return new(big.Int).Add(new(big.Int).SetBytes(b[:]), big.NewInt(1))
}
