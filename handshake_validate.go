package connectplugin

import (
	"fmt"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// Bounds of a handshake request, beyond those of its texts.
const (
	maxRequestedPlugins = 256
	maxDeclarations     = 256
	maxPluginNameLen    = 256
	maxCookieLen        = 256
	maxNonceLen         = 64
	maxProofLen         = 64
)

// validateHandshake bounds every field before anything is decided. The text
// names the field: it is the sender's own message.
func validateHandshake(m *connectpluginv1.HandshakeRequest) error {
	if m.GetSelfId() != "" {
		if err := ValidateSelfID(m.GetSelfId()); err != nil {
			return fmt.Errorf("self_id: %w", err)
		}
	}
	if m.GetSelfVersion() != "" {
		if err := ValidateVersion(m.GetSelfVersion()); err != nil {
			return fmt.Errorf("self_version: %w", err)
		}
	}
	if err := ValidateMetadata(m.GetClientMetadata()); err != nil {
		return fmt.Errorf("client_metadata: %w", err)
	}
	for _, f := range []struct {
		name     string
		len, max int
	}{
		{"magic_cookie_key", len(m.GetMagicCookieKey()), maxCookieLen},
		{"magic_cookie_value", len(m.GetMagicCookieValue()), maxCookieLen},
		{"client_nonce", len(m.GetClientNonce()), maxNonceLen},
		{"client_proof", len(m.GetClientProof()), maxProofLen},
	} {
		if f.len > f.max {
			return fmt.Errorf("%s: has more than %d bytes", f.name, f.max)
		}
	}
	if n := len(m.GetClientNonce()); n != 0 && n != nonceBytes {
		return fmt.Errorf("client_nonce: has %d bytes, must have %d", n, nonceBytes)
	}
	return validateHandshakeLists(m)
}

func validateHandshakeLists(m *connectpluginv1.HandshakeRequest) error {
	if len(m.GetRequestedPlugins()) > maxRequestedPlugins {
		return fmt.Errorf("requested_plugins: has more than %d entries", maxRequestedPlugins)
	}
	for _, name := range m.GetRequestedPlugins() {
		if len(name) > maxPluginNameLen {
			return fmt.Errorf("requested_plugins: a name has more than %d bytes", maxPluginNameLen)
		}
	}
	if len(m.GetProvides()) > maxDeclarations || len(m.GetRequires()) > maxDeclarations {
		return fmt.Errorf("provides, requires: have more than %d entries", maxDeclarations)
	}
	seen := map[string]bool{}
	for i, d := range m.GetProvides() {
		if err := declarationOf(d).validate(); err != nil {
			return fmt.Errorf("provides[%d]: %w", i, err)
		}
		if seen[d.GetType()] {
			return fmt.Errorf("provides[%d]: type %q is declared twice", i, d.GetType())
		}
		seen[d.GetType()] = true
	}
	clear(seen)
	for i, d := range m.GetRequires() {
		if err := ValidateServiceType(d.GetType()); err != nil {
			return fmt.Errorf("requires[%d]: %w", i, err)
		}
		if _, err := semrange.ParseConstraint(d.GetMinVersion()); err != nil {
			return fmt.Errorf("requires[%d]: min_version: %w", i, err)
		}
		if seen[d.GetType()] {
			return fmt.Errorf("requires[%d]: type %q is declared twice", i, d.GetType())
		}
		seen[d.GetType()] = true
	}
	return nil
}
