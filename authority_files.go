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
	"path/filepath"
	"slices"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/bom"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/guest"
)

// Names of the files. Those of credentials are the ones that Kubernetes and its
// certificate managers use for a TLS secret.
const (
	authorityCertFile = "authority.crt"
	authorityKeyFile  = "authority.key"

	credentialsCertFile = "tls.crt"
	credentialsKeyFile  = "tls.key"
	credentialsCAFile   = "ca.crt"
)

var errForeignCredentials = errors.New("the directory belongs to another identity")

// WriteCredentials writes the certificate, the private key and the authority's
// certificate of the plugin with a self id to tls.crt, tls.key and ca.crt in a
// directory, for a process elsewhere that takes them with [LoadCredentials]. The
// certificate is valid for the given host names and IP addresses, by default for
// localhost, 127.0.0.1 and ::1, and for AuthorityConfig.CertificateTTL.
//
// Called again for the same plugin it renews the certificate under the reader's
// eyes, in one step, and keeps the key, so that pins hold; to change the key, remove
// tls.key first. A directory with the certificate of another identity, or of another
// authority, is refused: so is, after a restart, that of an Authority without
// AuthorityConfig.Dir, whose plugins trust that authority until they are started again.
//
// As long as a [Host] runs with this Authority, it renews in the same way what was written
// by it, when a third of the life is left, and says so in its log; where tls.crt was
// removed it stops. A program without a host calls WriteCredentials again in time.
func (a *Authority) WriteCredentials(dir, selfID string, hosts ...string) error {
	if err := a.checkPlugin(selfID); err != nil {
		return err
	}

	if dir == "" {
		return fieldError("dir", "is empty; write the directory for the plugin's tls.crt, tls.key and ca.crt, such as %q", "run/"+selfID)
	}

	id := a.pluginID(selfID)

	leaf, err := a.writePlugin(dir, id, hosts)
	if err == nil {
		err = a.keep(dir, id, slices.Clone(hosts), leaf)
	}

	if err != nil {
		return fmt.Errorf("credentials of %s: %w", id, err)
	}

	return nil
}

// keep has the host renew what was written to a directory.
func (a *Authority) keep(dir string, id certs.ID, hosts []string, leaf *x509.Certificate) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}

	a.kept.Add(dir, certs.RenewAt(leaf), func(now time.Time) time.Time { return a.renewPlugin(dir, id, hosts, now) })

	return nil
}

// renewPlugin renews credentials if they are due, and returns when they will be again;
// the zero time where they are to be left alone from now on.
func (a *Authority) renewPlugin(dir string, id certs.ID, hosts []string, now time.Time) time.Time {
	log := a.log().With(keyDir, dir, keyIdentity, id.String())

	held, err := storedLeaf(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		log.Info("credentials were removed and are not renewed any more")
		return time.Time{}
	case err == nil && !certs.Due(held, now):
		return certs.RenewAt(held) // somebody else has renewed them
	}

	leaf, err := a.writePlugin(dir, id, hosts)
	switch {
	case errors.Is(err, errForeignCredentials):
		log.Warn("credentials are not renewed any more", keyError, err)
		return time.Time{}
	case err != nil:
		log.Warn("credentials could not be renewed; trying again", keyError, err)
		return now.Add(a.retry())
	case !now.Before(certs.RenewAt(leaf)):
		log.Warn("credentials end with their authority; make another one", certs.ClaimNotAfter, leaf.NotAfter)
		return time.Time{}
	}

	log.Info("credentials renewed", certs.ClaimNotAfter, leaf.NotAfter)

	return certs.RenewAt(leaf)
}

func (a *Authority) writePlugin(dir string, id certs.ID, hosts []string) (*x509.Certificate, error) {
	if err := a.refuseForeign(dir, id.String()); err != nil {
		return nil, err
	}

	key, err := storedKey(filepath.Join(dir, credentialsKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		key, err = certs.NewKey(a.keyType)
	}

	if errors.Is(err, certs.ErrPEM) {
		err = fmt.Errorf("%w; remove it and write the credentials again: they get a new key, which pins of this one do not accept", err)
	}

	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}

	cert, err := a.ca.Issue(a.request(id, key, hosts), time.Now())
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}

	return cert.Leaf, writeCredentials(dir, cert, key, a.ca)
}

// refuseForeign refuses a directory that holds the certificate of another identity, or one that another authority made.
func (a *Authority) refuseForeign(dir, identity string) error {
	held, err := storedLeaf(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	path := filepath.Join(dir, credentialsCertFile)
	if errors.Is(err, certs.ErrPEM) {
		return fmt.Errorf("%w; remove %s, if this is the directory of %s, and write the credentials again", err, path, identity)
	}

	if err != nil {
		return err
	}

	found := certs.CertificateIdentity(held)

	switch {
	case found == identity && held.CheckSignatureFrom(a.ca.Certificate()) == nil:
		return nil
	case found == identity, isNamesake(found, identity):
		return fmt.Errorf("%w: %s is of another authority (%q, issued by %q), and whoever runs with it trusts no other: load that with "+
			"LoadAuthority; one without AuthorityConfig.Dir ends with its process: if it was lost, remove the directory and write "+
			"the credentials again",
			errForeignCredentials, path, found, held.Issuer)
	}

	return fmt.Errorf("%w: %s is the certificate of %q: use another directory", errForeignCredentials, path, found)
}

// isNamesake reports whether two identities differ in their trust domain alone.
func isNamesake(one, other string) bool {
	a, errA := certs.ParseID(one)
	b, errB := certs.ParseID(other)

	return errA == nil && errB == nil && a.Role == b.Role && a.Name == b.Name
}

// storedLeaf reads the certificate in a directory.
func storedLeaf(dir string) (*x509.Certificate, error) {
	path := filepath.Join(dir, credentialsCertFile)

	data, err := os.ReadFile(path) //nolint:gosec // the path is the caller's
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}

	list, err := certs.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}

	return list[0], nil
}

// storedKey reads a private key that only its owner may reach.
func storedKey(path string) (crypto.Signer, error) {
	data, err := certs.ReadPrivateFile(path)
	if err != nil {
		return nil, fmt.Errorf("stored key: %w", err)
	}

	key, err := certs.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}

	return key, nil
}

// writeCredentials replaces the files one by one, the certificate last: a reader
// goes on with what it has until all of them fit.
func writeCredentials(dir string, cert *tls.Certificate, key crypto.Signer, ca *certs.CA) error {
	keyPEM, err := certs.EncodeKey(key)
	if err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}

	if err := certs.MakePrivateDir(dir); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}

	for _, file := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{credentialsCAFile, ca.CertificatePEM(), certs.PublicFile},
		{credentialsKeyFile, keyPEM, certs.PrivateFile},
		{credentialsCertFile, certs.EncodeCertificates(cert.Certificate...), certs.PublicFile},
	} {
		if err := certs.ReplaceFile(filepath.Join(dir, file.name), file.data, file.mode); err != nil {
			return fmt.Errorf("write credentials: %w", err)
		}
	}

	return nil
}

// CredentialsConfig configures [LoadCredentials].
type CredentialsConfig struct {
	// Dir holds tls.crt (the certificate, then its intermediates), tls.key and ca.crt
	// (one or more authorities to trust), all PEM. Only its owner may reach tls.key. Required.
	Dir string

	// CheckInterval is the least time between two looks at the files. Zero means one second.
	CheckInterval time.Duration

	// Logger hears about certificates taken over and refused. Nil means silence.
	Logger *slog.Logger
}

// LoadCredentials returns what a plugin serves with and dials its host with, from
// files that [Authority.WriteCredentials], a launcher or a certificate manager wrote.
//
// When tls.crt or tls.key are replaced, the next handshake takes the new pair over;
// while they do not fit together or do not verify, it goes on with the last good one.
// ca.crt is read once: to change the authority, let it hold both for a while, and start the program again
// after each change of it.
//
// Clients must bring a certificate. If the plugin's own certificate is that of an
// Authority, the peer must be the host of its trust domain, in both roles, certified
// by an authority of that domain in ca.crt and by no other one there.
func LoadCredentials(config CredentialsConfig) (*tls.Config, error) {
	if config.Dir == "" {
		return nil, fieldError("Dir", "is required to load credentials")
	}

	if config.CheckInterval < 0 {
		return nil, fieldError("CheckInterval", isNegative)
	}

	trusted, err := readAuthorities(filepath.Join(config.Dir, credentialsCAFile))
	if err != nil {
		return nil, noCredentials(err)
	}

	pool := x509.NewCertPool()
	for _, cert := range trusted {
		pool.AddCert(cert)
	}

	now := time.Now()

	source, err := certs.NewFileSource(certs.FileConfig{
		CertFile: filepath.Join(config.Dir, credentialsCertFile),
		KeyFile:  filepath.Join(config.Dir, credentialsKeyFile),
		Roots:    pool,
		Interval: config.CheckInterval,
		Logger:   guest.Log("CredentialsConfig.Logger", config.Logger),
	}, now)
	if err != nil {
		return nil, noCredentials(err)
	}

	own := source.Certificate(now).Leaf
	if trustsItselfAlone(own, trusted) {
		return nil, fmt.Errorf("credentials: %s holds the plugin's own certificate, as %s does: write that of the authority there, "+
			"as WriteCredentials does, since no host is trusted otherwise", filepath.Join(config.Dir, credentialsCAFile), credentialsCertFile)
	}

	return mutualTLS(source, pool, tls.RequireAndVerifyClientCert, hostOfDomain(own, trusted)), nil
}

// hostOfDomain returns the check of whoever has a certificate of an Authority: the
// peer is the host of its trust domain, with a certificate of an authority of that
// domain among the trusted ones. It is nil for a certificate of somebody else.
func hostOfDomain(own *x509.Certificate, trusted []*x509.Certificate) peerCheck {
	id, err := certs.ParseID(certs.CertificateIdentity(own))
	if err != nil {
		return nil
	}

	host := certs.ID{TrustDomain: id.TrustDomain, Role: certs.RoleHost, Name: ""}

	authorities := slices.DeleteFunc(slices.Clone(trusted), func(ca *x509.Certificate) bool {
		domain, err := certs.AuthorityDomain(ca)

		return err != nil || domain != id.TrustDomain
	})
	if len(authorities) == 0 {
		return requirePeerIdentity(host.String())
	}

	return verifyAll(requirePeerIdentity(host.String()), func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		if !slices.ContainsFunc(authorities, func(ca *x509.Certificate) bool { return leaf.CheckSignatureFrom(ca) == nil }) {
			return fmt.Errorf("%w: %q of %q", errForeignIssuer, host, leaf.Issuer)
		}

		return nil
	})
}

// readAuthorities reads the certificates of the authorities to trust.
func readAuthorities(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the path is the caller's
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}

	list, err := certs.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}

	return list, nil
}

// storeAuthority writes a new authority to a directory that holds none.
func storeAuthority(dir string, ca *certs.CA) error {
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}

	if err := certs.MakePrivateDir(dir); err != nil {
		return fmt.Errorf("store: %w", err)
	}

	keyFile := filepath.Join(dir, authorityKeyFile)
	certFile := filepath.Join(dir, authorityCertFile)

	if err := certs.CreateFile(keyFile, keyPEM, certs.PrivateFile); err != nil {
		return explainExisting(keyFile, certFile, err)
	}

	if err := certs.CreateFile(certFile, ca.CertificatePEM(), certs.PublicFile); err != nil {
		return explainExisting(certFile, keyFile, errors.Join(err, os.Remove(keyFile)))
	}

	return nil
}

// explainExisting says what to do about a file that is not to be overwritten. Of an authority there is another one.
func explainExisting(path, other string, err error) error {
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("store: %w", err)
	}

	if !isComing(other, path) {
		return fmt.Errorf("store: %s is there already, %s: %w", path, lacksItsHalf(other), err)
	}

	return fmt.Errorf("store: %s is there already: load it with LoadAuthority, choose another Dir, "+
		"or remove it, which ends the trust in all that it certified: %w", path, err)
}

// lacksItsHalf says what to do about an authority of which one file is missing.
func lacksItsHalf(missing string) string {
	return "and " + missing + ", which belongs to it, is missing, so that LoadAuthority takes neither: unless another process is making " +
		"both just now, put that back from a copy, choose another Dir, or remove what is there and make another authority, " +
		"which ends the trust in all that this one certified"
}

// readAuthority reads what storeAuthority wrote.
func readAuthority(dir string, now time.Time) (*certs.CA, error) {
	keyFile, certFile := filepath.Join(dir, authorityKeyFile), filepath.Join(dir, authorityCertFile)

	keyPEM, err := certs.ReadPrivateFile(keyFile)
	if err != nil {
		return nil, explainMissing(keyFile, certFile, err)
	}

	certPEM, err := os.ReadFile(certFile) //nolint:gosec // the path is the caller's
	if errors.Is(err, fs.ErrNotExist) && isComing(certFile, keyFile) {
		certPEM, err = os.ReadFile(certFile) //nolint:gosec // the path is the caller's
	}

	if err != nil {
		return nil, explainMissing(certFile, keyFile, err)
	}

	ca, err := certs.ParseCA(certPEM, keyPEM, now)
	if errors.Is(err, certs.ErrPEM) || errors.Is(err, bom.ErrFound) {
		damaged := keyFile
		if _, wrong := certs.ParseCertificates(certPEM); wrong != nil {
			damaged = certFile
		}

		if errors.Is(err, bom.ErrFound) {
			return nil, fmt.Errorf("load %s: %w", damaged, err)
		}

		return nil, fmt.Errorf("load %s: %w; put it back from a copy: without both files the authority is lost, and another one has to write "+
			"all credentials again", damaged, err)
	}

	if err != nil {
		return nil, fmt.Errorf("load %s: %w", dir, err)
	}

	return ca, nil
}

// explainMissing says what to do where one file of an authority is missing, and the other one is there.
func explainMissing(path, other string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && isThere(other) {
		return fmt.Errorf("load: %s is there, %s: %w", other, lacksItsHalf(path), err)
	}

	return fmt.Errorf("load: %w", err)
}

// keyDir names a directory in the log.
const keyDir = "dir"

// AwaitCredentials is [LoadCredentials] for a program that may be started before
// somebody has written its credentials: as long as a file is missing it waits, says so
// once at Warn, and looks again every CheckInterval. It fails where LoadCredentials does
// for another reason twice in a row, since a file that is being copied looks damaged for a
// moment, and when ctx ends, with the error of that and of the file.
func AwaitCredentials(ctx context.Context, config CredentialsConfig) (*tls.Config, error) {
	log, every := guest.Log("CredentialsConfig.Logger", config.Logger), config.CheckInterval
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if every <= 0 {
		every = time.Second
	}
	for told, damaged := false, false; ; {
		loaded, err := LoadCredentials(config)
		missing := errors.Is(err, fs.ErrNotExist)
		if err == nil || errors.Is(err, ErrInvalidConfig) || damaged && !missing {
			return loaded, err
		}
		damaged = !missing
		if missing && !told {
			told = true
			log.Warn("waiting for credentials: the host, or who operates it, has to write them", keyDir, config.Dir, keyError, err)
		}
		if !backoff.Wait(ctx, every) {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}
