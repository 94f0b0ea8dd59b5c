package connectplugin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

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

	if id.Role != certs.RoleLaunch {
		return nil
	}

	a.mu.RLock()
	pin, running := a.launches[id.String()]
	a.mu.RUnlock()

	if !running || pin != certs.PinOf(leaf) {
		return fmt.Errorf("%w: %s", errLaunchEnded, id)
	}

	return nil
}
