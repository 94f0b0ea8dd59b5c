package connectplugin

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

const (
	// mostRetry is the time between attempts to renew files, at most, and retries how many there are in the life of a certificate.
	mostRetry, leastRetry = time.Minute, time.Second
	retries               = 24
)

// retry is the time between attempts to renew files: there are some before the certificate ends in them.
func (a *Authority) retry() time.Duration { return min(mostRetry, max(a.ttl/retries, leastRetry)) }

// LaunchTLSConfig configures [Authority.LaunchTLS].
type LaunchTLSConfig struct {
	// ID names the launch: a runtime id, or anything of letters, digits, '.', '-' and
	// '_' that no running launch has. Required.
	ID string

	// Hosts are the host names and IP addresses that the launched plugin serves on.
	// Empty means localhost, 127.0.0.1 and ::1.
	Hosts []string

	// Dir is where the launched process finds its credentials (see LoadCredentials); it
	// is made if it is not there, and belongs to this launch alone. Empty means that
	// the plugin runs in this process and uses LaunchTLS.PluginTLS.
	Dir string
}

// LaunchTLS is the mutual TLS of one launch of a plugin: a key and a certificate
// that are good from [Authority.LaunchTLS] until Close, and for this launch only.
// The host's side accepts no other peer than this launch, the launch's side none but
// the host. It is safe for concurrent use.
type LaunchTLS struct {
	// Fixed at creation.
	authority *Authority
	id        certs.ID
	key       crypto.Signer
	source    *certs.Renewer
	host      *certs.Renewer
	pin       certs.Pin
	dir       string
	stop      context.CancelFunc

	renewing sync.WaitGroup
}

// LaunchTLS makes the certificate of one launch. With a directory it keeps the files
// there fresh until Close, because a launch may outlive its certificate. The caller
// owns the result and closes it when the launch has ended, which does not remove the
// directory.
func (a *Authority) LaunchTLS(config LaunchTLSConfig) (*LaunchTLS, error) {
	launch, err := a.newLaunch(config)
	if err != nil {
		return nil, err
	}

	if !a.addLaunch(launch.Identity(), launch.pin) {
		return nil, fieldError("ID", "launch %q is running already", config.ID)
	}

	if config.Dir == "" {
		return launch, nil
	}

	if err := launch.write(); err != nil {
		launch.Close()

		return nil, fmt.Errorf("certificate of %s: %w", launch.id, err)
	}

	ctx, stop := context.WithCancel(context.Background())
	launch.stop = stop
	launch.renewing.Go(func() { launch.keepFresh(ctx) })

	return launch, nil
}

// newLaunch makes a launch that nobody accepts yet.
func (a *Authority) newLaunch(config LaunchTLSConfig) (*LaunchTLS, error) {
	if err := a.check(); err != nil {
		return nil, err
	}

	id := certs.ID{TrustDomain: a.TrustDomain(), Role: certs.RoleLaunch, Name: config.ID}
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("%w: ID: %w", ErrInvalidConfig, err)
	}

	source, key, err := a.newSource(id, config.Hosts)
	if err != nil {
		return nil, err
	}

	host, err := a.source(a.hostID(), a.hostKey, nil)
	if err != nil {
		return nil, err
	}

	cert, err := source.Certificate(time.Now())
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", id, err)
	}

	return &LaunchTLS{
		authority: a, id: id, key: key, source: source, host: host,
		pin: certs.PinOf(cert.Leaf), dir: config.Dir, stop: func() {},
	}, nil
}

// Identity returns the launch's identity: spiffe://<trust domain>/launch/<launch id>.
func (l *LaunchTLS) Identity() string { return l.made().id.String() }

// HostTLS returns what the host dials the launched plugin with: it accepts this
// launch and nobody else, whatever certificate that brings.
func (l *LaunchTLS) HostTLS() *tls.Config {
	pinned := certs.VerifyPins([]certs.Pin{l.made().pin})
	verify := verifyAll(l.authority.checkPeer, pinned)

	return mutualTLS(l.host, l.authority.CertPool(), tls.RequireAndVerifyClientCert, verify)
}

// PluginTLS returns what the launched plugin serves with and dials the host with if
// it runs in this process.
func (l *LaunchTLS) PluginTLS() *tls.Config {
	return l.made().authority.pluginTLS(l.source)
}

// Close ends the launch: from now on no host of this Authority takes its certificate.
// Connections that stand are cut within [Limits.CertificateOvertime] and a minute. Close may
// be called again, and waits until the files are left alone.
func (l *LaunchTLS) Close() {
	l.made().stop()
	l.authority.removeLaunch(l.id.String(), l.pin)
	l.renewing.Wait()
}

// made returns the TLS of a launch that Authority.LaunchTLS made.
func (l *LaunchTLS) made() *LaunchTLS {
	mustBeMade("the LaunchTLS", l != nil && l.authority != nil, "Authority.LaunchTLS")

	return l
}

// keepFresh writes the files again whenever the certificate is due, until ctx ends.
func (l *LaunchTLS) keepFresh(ctx context.Context) {
	written := l.source.Leaf()

	timer := time.NewTimer(certs.Wait(written, time.Now()))
	defer timer.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}

		wait := certs.Wait(written, time.Now())
		if wait > 0 {
			timer.Reset(wait)
			continue
		}

		if err := l.write(); err != nil {
			wait = l.authority.retry()
			l.authority.log().Warn("the certificate of a launch is not renewed",
				keySubject, l.Identity(), keyError, err.Error())
		} else {
			written = l.source.Leaf()
			if wait = certs.Wait(written, time.Now()); wait <= 0 {
				return // it ends with the authority, no later one can follow
			}
		}

		timer.Reset(wait)
	}
}

// write renews the certificate if it is due and writes the files.
func (l *LaunchTLS) write() error {
	cert, err := l.source.Certificate(time.Now())
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}

	return writeCredentials(l.dir, cert, l.key, l.authority.ca)
}

func (a *Authority) addLaunch(identity string, pin certs.Pin) bool {
	a.mu.Lock()
	defer a.mu.Unlock()

	if _, running := a.launches[identity]; running {
		return false
	}

	a.launches[identity] = pin

	return true
}

// removeLaunch forgets a launch, unless a later one has taken its name.
func (a *Authority) removeLaunch(identity string, pin certs.Pin) {
	a.mu.Lock()
	defer a.mu.Unlock()

	if a.launches[identity] == pin {
		delete(a.launches, identity)
	}
}

var errLaunchEnded = errors.New("the certificate belongs to no launch that is running")

// requireHost returns the check of plugins and clients: the peer is the host, with a
// certificate of this authority.
func (a *Authority) requireHost() peerCheck {
	return verifyAll(requirePeerIdentity(a.HostIdentity()), a.checkPeer)
}

// checkPeer refuses a peer that names the trust domain in a certificate of somebody
// else, and the certificates of launches that have ended. Peers of other authorities
// are for others to judge.
func (a *Authority) checkPeer(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}

	leaf := state.PeerCertificates[0]
	if err := a.vouchFor(leaf); err != nil {
		return err
	}

	return a.refuseEndedLaunch(leaf)
}

// vouchFor refuses a certificate that names the trust domain and is of somebody else.
func (a *Authority) vouchFor(leaf *x509.Certificate) error {
	identity, err := certs.Identity(leaf)
	if err != nil {
		return fmt.Errorf("%w: %w", errPeerIdentity, err)
	}

	if certs.TrustDomainOf(identity) == a.TrustDomain() && !a.ca.Issued(leaf) {
		return fmt.Errorf("%w: %q of %q", errForeignIssuer, identity, leaf.Issuer)
	}

	return nil
}

// refuseEndedLaunch refuses a certificate of this authority that is that of a launch,
// unless the launch runs and the key is its own.
func (a *Authority) refuseEndedLaunch(leaf *x509.Certificate) error {
	if !a.ca.Issued(leaf) {
		return nil
	}

	id, err := certs.ParseID(certs.CertificateIdentity(leaf))
	if err != nil {
		return fmt.Errorf("%w: %w", errPeerIdentity, err)
	}

	if a.launchHasEnded(id.String(), leaf) {
		return fmt.Errorf("%w: %s", errLaunchEnded, id)
	}

	return nil
}

// launchHasEnded reports whether a certificate of this authority is that of a launch which
// does not run, or whose key is another.
func (a *Authority) launchHasEnded(identity string, leaf *x509.Certificate) bool {
	id, err := certs.ParseID(identity)
	if err != nil || id.Role != certs.RoleLaunch || id.TrustDomain != a.TrustDomain() {
		return false
	}

	a.mu.RLock()
	pin, running := a.launches[identity]
	a.mu.RUnlock()

	return !running || pin != certs.PinOf(leaf)
}
