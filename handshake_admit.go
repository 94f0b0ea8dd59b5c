package connectplugin

import (
	"fmt"
	"slices"
	"time"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/certs"
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

// admit decides whether the peer is the plugin that it claims to be. It returns
// the plugin's rules and the certificate identity that it showed. In the host's
// own process everybody is admitted.
func (hs *handshake) admit(selfID string) (rules *pluginRules, certIdentity string, err error) {
	if hs.peer != nil && hs.peer.certificate != nil {
		certIdentity = hs.peer.certificate.identity
	}
	rules, byCertificate := hs.hub.rules.Load().rules(selfID, certIdentity)
	if hs.peer == nil {
		return rules, certIdentity, nil
	}
	secret := hs.secretOf(selfID, rules)
	if len(hs.req.GetClientProof()) == 0 && hs.hub.launches.Find(certIdentity) != nil {
		secret = nil // the certificate of a launch proves more: the host itself gave it to the plugin
	}
	proven := byCertificate
	ok, err := hs.proveSecret(selfID, secret)
	switch {
	case rules == nil:
		return nil, "", refused("policy does not know this self id: add it to Policy.Plugins, or set Policy.Default")
	case err != nil:
		return nil, "", err
	case ok:
		proven = true
	}
	byCert, err := hs.proveCertificate(selfID, rules)
	if err != nil {
		return nil, "", err
	}
	if !proven && !byCert && !rules.allowUnproven {
		return nil, "", refused("nothing proves this self id: give it a Secret or Certificates in its PluginPolicy, " +
			"or set AllowUnproven to accept whoever names it")
	}
	return rules, certIdentity, nil
}

// secretOf returns the enrolment secret of a self id, nil for none.
func (hs *handshake) secretOf(selfID string, rules *pluginRules) Secret {
	if f := hs.cfg.HandshakeAuth.Secret; f != nil {
		if s := f(selfID); len(s) > 0 {
			return s
		}
	}
	if rules != nil && len(rules.secret) > 0 {
		return rules.secret
	}
	return nil
}

// proveSecret checks the client's proof where either side has a secret. It works
// the same for a self id that nobody knows, with a secret that nobody has.
func (hs *handshake) proveSecret(selfID string, secret Secret) (bool, error) {
	hasProof := len(hs.req.GetClientProof()) > 0
	if secret == nil && !hasProof {
		return false, nil
	}
	checked := secret
	if secret == nil {
		checked = hs.hub.decoy
	}
	binding := hs.peer.binding()
	bound := binding != nil && verifyHandshakeRequest(hs.req, checked, binding)
	unbound := verifyHandshakeRequest(hs.req, checked, nil)
	switch {
	case secret == nil:
		return false, refused("the plugin proves a secret and the host has none for it: set PluginPolicy.Secret")
	case !hasProof:
		return false, refused("the plugin proves no secret and policy demands one: set ClientConfig.Secret")
	case !bound && !unbound:
		return false, refused("the plugin's proof is wrong: its secret differs from the host's, or the message was altered")
	case !bound && hs.cfg.HandshakeAuth.RequireChannelBinding:
		return false, refused("the plugin's proof is not bound to this TLS connection")
	}
	if err := hs.claimNonce(selfID, bound); err != nil {
		return false, err
	}
	hs.secret = secret
	if bound {
		hs.binding = binding
	}
	return true, nil
}

// claimNonce refuses a proof that is too old, from the future, or seen before.
func (hs *handshake) claimNonce(selfID string, bound bool) error {
	if hs.req.GetIssuedAt() == nil {
		return refused("the proof carries no issued_at")
	}
	cache := hs.server.nonces.Load().unbound
	if bound {
		cache = hs.server.nonces.Load().bound
	}
	if err := cache.Claim(selfID, hs.req.GetClientNonce(), hs.req.GetIssuedAt().AsTime(), time.Now()); err != nil {
		return refused(err.Error())
	}
	return nil
}

// proveCertificate checks the client certificate as the rules demand and reports
// whether it proves the self id.
func (hs *handshake) proveCertificate(selfID string, rules *pluginRules) (bool, error) {
	cert := hs.peer.certificate
	demanded := hs.cfg.HandshakeAuth.RequireCertificate || len(rules.certificates.names) > 0 || len(rules.pins) > 0
	if cert == nil {
		if demanded {
			return false, refused("a client certificate is required and none was verified")
		}
		return false, nil
	}
	proven := false
	if len(rules.certificates.names) > 0 {
		if !rules.certificates.has(cert.identity) && !hs.namesLaunched(rules, cert.identity) {
			return false, refused(fmt.Sprintf("certificate identity %q is not among the plugin's Certificates", cert.identity))
		}
		proven = true
	}
	if len(rules.pins) > 0 {
		if !pinned(rules.pins, cert) {
			return false, refused("the certificate's key is not among the plugin's PinnedKeys")
		}
		proven = true
	}
	named, ok, err := hs.authoritySays(cert)
	switch {
	case err != nil:
		return false, err
	case ok && named != selfID:
		return false, refused(fmt.Sprintf("the certificate is that of %q", named))
	}
	return proven || ok, nil
}

// authoritySays returns the self id that a certificate of the host's own
// authority names. The certificate of a launch names none.
func (hs *handshake) authoritySays(cert *certificate) (selfID string, ok bool, err error) {
	a := hs.cfg.Authority
	if a == nil {
		return "", false, nil
	}
	id, err := certs.ParseID(cert.identity)
	if err != nil || id.TrustDomain != a.TrustDomain() {
		return "", false, nil //nolint:nilerr // a certificate of somebody else proves nothing here
	}
	switch id.Role {
	case certs.RolePlugin:
		return id.Name, true, nil
	case certs.RoleLaunch:
		if launched := hs.hub.launches.Find(cert.identity); launched != nil {
			return launched.SelfID, true, nil
		}
		return "", false, nil // proves what the plugin's Certificates say that it proves
	case certs.RoleHost:
	}
	return "", false, refused(fmt.Sprintf("certificate identity %q is not a plugin's", cert.identity))
}

// namesLaunched reports whether an identity is that of a launch whose plugin the rules
// name: the authority's certificate of a self id and that of its launch are worth the
// same.
func (hs *handshake) namesLaunched(rules *pluginRules, identity string) bool {
	launched := hs.hub.launches.Find(identity)
	return launched != nil && hs.cfg.Authority != nil && rules.certificates.has(hs.cfg.Authority.PluginIdentity(launched.SelfID))
}

func pinned(pins []certs.Pin, cert *certificate) bool {
	return slices.Contains(pins, certs.PinOf(cert.leaf))
}

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

func declarationOf(d *connectpluginv1.ServiceDeclaration) ServiceDeclaration {
	return ServiceDeclaration{Type: d.GetType(), Version: d.GetVersion(), Path: d.GetPath()}
}
