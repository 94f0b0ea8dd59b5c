package policy

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// Rules are the compiled policy of one plugin. The zero value allows nothing. They
// must not be changed once they are used.
type Rules struct {
	// What the plugin may do.
	Provides, Requires, Capabilities, HostPlugins Set
	// Where the host dials it: at Endpoint, empty for nowhere, or where the plugin
	// says.
	Endpoint        string
	AllowOwnAddress bool
	// What its types open that registered no path; none is what no other type registered.
	Procedures Procedures
	// How it proves that it is the plugin.
	Secret        Secret
	Certificates  Set // identities of which its certificate has to have one
	Pins          []certs.Pin
	AllowUnproven bool
	SelfIDs       Set // that the holder of a certificate may claim; empty for any
	// MaxInstances bounds its live identities; zero is the host's own bound.
	MaxInstances int
}

// Secret is an enrolment secret. It prints as [redacted].
type Secret []byte

const redacted = "[redacted]"

// Format prints the same for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue says nothing of the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText says nothing of the secret, to every text encoding.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Why a certificate is refused. The texts are for the log.
var (
	ErrNotPinned = errors.New("the certificate's key is not among the plugin's PinnedKeys")
	ErrNotNamed  = errors.New("is not among the plugin's Certificates")
	ErrNotSelfID = errors.New("is not among the SelfIDs of the certificate's policy")
)

// DemandCertificate reports whether the rules are about a certificate at all.
func (r *Rules) DemandCertificate() bool { return r.Certificates.NamesAny() || len(r.Pins) > 0 }

// CheckCertificate reports whether a certificate, by its identity and the digest of
// its key, is what the rules demand, and whether that proves that its owner is the
// plugin. Rules that say nothing of certificates take any and prove nothing by it.
func (r *Rules) CheckCertificate(identity string, key certs.Pin) (proven bool, err error) {
	if r.Certificates.NamesAny() && !r.Certificates.Has(identity) {
		return false, fmt.Errorf("certificate identity %q %w", identity, ErrNotNamed)
	}
	if len(r.Pins) > 0 && !slices.Contains(r.Pins, key) {
		return false, ErrNotPinned
	}
	return r.DemandCertificate(), nil
}

// CheckSelfID refuses a self id that the holder of a certificate may not claim.
func (r *Rules) CheckSelfID(selfID string) error {
	if r.SelfIDs.NamesAny() && !r.SelfIDs.Has(selfID) {
		return fmt.Errorf("self id %q %w", selfID, ErrNotSelfID)
	}
	return nil
}

// SameCertificates reports whether both demand the same certificates.
func (r *Rules) SameCertificates(other *Rules) bool {
	return slices.Equal(r.Pins, other.Pins) && maps.Equal(r.Certificates.names, other.Certificates.names)
}

// SameAddress reports whether both say the same of where the plugin is dialled.
func (r *Rules) SameAddress(other *Rules) bool {
	return r.Endpoint == other.Endpoint && r.AllowOwnAddress == other.AllowOwnAddress
}
