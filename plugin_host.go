package connectplugin

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

var (
	errHostUnknown = errors.New("the plugin does not know its host: set HostIdentity or PinnedKeys")
	errNotTheHost  = errors.New("caller is not the host")
)

// hostTrust says whom a plugin takes for its host: whom its operator named, or the
// SPIFFE id of the host that it enrolled with. Any other name may be somebody else's,
// too, and is never learned.
type hostTrust struct {
	// Fixed at creation.
	identity   string      // that the operator named, empty for none
	pins       []certs.Pin // that the operator named
	client     *Client     // enrols
	plaintext  bool
	byCallback bool // the server's configuration verifies certificates itself
	log        *slog.Logger
}

func newHostTrust(cfg *PluginServerConfig, client *Client) *hostTrust {
	pins, _ := certs.ParsePins(cfg.Client.PinnedKeys) // validated before
	return &hostTrust{
		identity: cmp.Or(cfg.HostIdentity, cfg.Client.HostIdentity), pins: pins, client: client,
		plaintext: cfg.Client.AllowInsecure, byCallback: verifiesItself(cfg.serverBase()), log: cfg.Client.Logger,
	}
}

// onlyHost is a check for tls.Config.VerifyConnection.
func (t *hostTrust) onlyHost(cs tls.ConnectionState) error {
	want := t.want()
	leaf, shown := verifiedPeer(&cs, t.byCallback)
	switch {
	case want == "" && len(t.pins) == 0:
		return errHostUnknown
	case leaf == nil:
		return errNotTheHost
	case want != "" && shown != want:
		return fmt.Errorf("%w: it is %q instead of %q", errNotTheHost, shown, want)
	case len(t.pins) > 0 && !slices.Contains(t.pins, certs.PinOf(leaf)):
		return fmt.Errorf("%w: the key of %q is not among PinnedKeys", errNotTheHost, shown)
	}
	return nil
}

// want returns the identity of the host, empty where none is known.
func (t *hostTrust) want() string {
	if t.identity != "" || len(t.pins) > 0 {
		return t.identity
	}
	shown := certs.CertificateIdentity(t.client.hostCertificate())
	if !certs.IsSPIFFE(shown) {
		return ""
	}
	return shown
}

const warnNobody = "nobody may call this plugin, because it does not know its host: set HostIdentity to the identity of the certificate " +
	"with which the host calls plugins, or PinnedKeys to its key"

// warnStart says so where the plugin will serve nobody. A plugin with a SPIFFE id of
// its own may expect that its host has one.
func (t *hostTrust) warnStart(cfg *PluginServerConfig) {
	if t.plaintext || t.identity != "" || len(t.pins) > 0 || certs.IsSPIFFE(certs.CertificateIdentity(certs.ServerLeaf(cfg.serverBase()))) {
		return
	}
	t.log.Warn(warnNobody)
}

// warnEnrolled says it again where the host turned out to have no SPIFFE id, with what
// may be written into the configuration.
func (t *hostTrust) warnEnrolled() {
	leaf := t.client.hostCertificate()
	if t.plaintext || t.want() != "" || len(t.pins) > 0 || leaf == nil {
		return
	}
	t.log.Warn(warnNobody, keyIdentity, certs.CertificateIdentity(leaf), keyKey, certs.PinOf(leaf).String())
}
