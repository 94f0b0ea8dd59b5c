package connectplugin

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/held"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tally"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// Policy says what plugins may do. It is copied when a host takes it over. Nil
// grants nothing.
type Policy struct {
	// Plugins holds the policy of each plugin by its one name, which decides what is
	// counted together, who owns what, and what the audit and other plugins are told. It
	// is the self id, or the identity of the plugin's client certificate, which then is
	// its proof too, whatever self id it claims: the SPIFFE id (see
	// [Authority.PluginIdentity]), else the first DNS name, else the common name.
	//
	// A name that both a self id and a certificate can have, as a DNS name, is that of
	// both, unless the entry says how the self id is proven (Certificates,
	// AllowUnproven), or that it is not about one (SelfIDs). A host with an Authority,
	// which certifies self ids, takes it for a self id unless SelfIDs says otherwise.
	Plugins map[string]PluginPolicy
	// Default applies to a plugin that Plugins names neither by self id nor by
	// certificate. Nil refuses it.
	Default *PluginPolicy
	// AllowMultiple lists the service types that several plugins may provide
	// at the same time; "*" is every type. Any other type belongs to its first
	// approved provider.
	AllowMultiple []string
	// Idempotent lists procedures of plugins, for example "/acme.v1.Store/Get",
	// that the router may send to another provider of the same type, version
	// and path when the one that was asked cannot be reached and nothing was
	// sent; "*" is every one. Side-effect-free GETs of Connect are anyway.
	Idempotent []string
	// Public lists the host's own plugin services that anybody may call without
	// authentication; "*" is every one. "health" opens the health service, which
	// then tells of the host and of what else is public, by name or among the host's plugins.
	Public []string
}

// PluginPolicy says what one plugin may do and how it proves itself. What it
// declares in its handshake narrows it further. The zero value allows nothing, and
// refuses the handshake unless a certificate of [ServeConfig.Authority] names the self id:
// that is proof enough.
type PluginPolicy struct {
	// Provides lists the service types that the plugin may register; "*" is
	// every type.
	Provides []string
	// Requires lists the service types that it may discover, watch and call;
	// "*" is every type.
	Requires []string
	// Capabilities lists the host's capabilities that it may be granted; "*" is
	// every one.
	Capabilities []string
	// HostPlugins lists the host's own plugin services that it may call; "*" is
	// every one but the admin services, which are named by the values of [AdminRead] and
	// [AdminChange]. The host warns of names that it does not have.
	HostPlugins []string
	// Procedures lists what the plugin's service types open that register no path of their
	// own: procedures, for example "/acme.v1.Store/Get", and whole services,
	// "/acme.v1.Store/"; "*" is every one. Empty means what no other type of the plugin
	// registered. Types that register a path open what is below that, and nothing else.
	Procedures []string
	// Endpoint is the base URL at which the host dials the plugin, for example
	// "https://10.0.0.7:9443". Plaintext takes [ServeConfig.AllowInsecure]. Empty means none, or
	// see AllowOwnAddress.
	Endpoint string
	// AllowOwnAddress lets the plugin name its own endpoint when it registers
	// (metadata key "base_url"), on the address that it registers from and no
	// other. Unless an [Authority], or a certificate or key that policy gives to it
	// alone, tells it from others on the address, it has to prove that it answers
	// there, as [ServePlugin] does; a plugin of the first wire version cannot, and
	// needs an Endpoint.
	AllowOwnAddress bool
	// Secret is the plugin's enrolment secret. Where it is set the handshake
	// must prove it.
	Secret Secret
	// Certificates lists the certificate identities of which the plugin must
	// present one.
	Certificates []string
	// PinnedKeys lists SHA-256 digests of public keys (SPKI, RFC 7469), base64
	// or hex; the plugin's certificate must have one of them, as a client and
	// as a server.
	PinnedKeys []string
	// AllowUnproven accepts the plugin without secret or certificate: whoever
	// names its self id is it. First-version plugins need it.
	AllowUnproven bool
	// MaxInstances bounds its live identities. Zero means
	// [Limits.MaxIdentitiesPerSelfID].
	MaxInstances int
	// SelfIDs says that the policy is written for a certificate identity, and lists the
	// self ids that its holder may claim; "*" is every one. They change nothing about the
	// plugin's name. Empty means every one, too. Only in Policy.Plugins.
	SelfIDs []string
}

// The names of the admin services among the host's own plugins.
const (
	// AdminRead tells what the host holds and what it decided.
	AdminRead = adminv1connect.AdminReadServiceName
	// AdminChange revokes, readmits, drains, replaces and reloads.
	AdminChange = adminv1connect.AdminChangeServiceName
)

// HandshakeAuth says how plugins prove themselves in the handshake beyond what
// their policy says. The zero value takes secrets from [PluginPolicy] alone.
type HandshakeAuth struct {
	// Secret returns the enrolment secret of a self id, nil where it has none: one of
	// fewer than 16 bytes, also an empty one, refuses the plugin. It is asked before
	// [PluginPolicy.Secret], is called concurrently and must not block. May be nil.
	Secret func(selfID string) Secret
	// RequireCertificate refuses handshakes without a verified client
	// certificate.
	RequireCertificate bool
	// RequireChannelBinding refuses proofs that are not bound to the TLS connection by
	// its exporter value (RFC 5705), as those of a client behind a proxy that ends TLS.
	RequireChannelBinding bool
	// MaxClockSkew is how far a client's clock may be off, and how long a nonce
	// is remembered. Zero means 2 min; 1 ms is the least.
	MaxClockSkew time.Duration
	// ReplayCacheSize bounds the remembered nonces; a full cache refuses. Zero
	// means 65,536.
	ReplayCacheSize int
}

// OpenPolicy returns a policy that allows every plugin everything without
// proof. It is for development only.
func OpenPolicy() *Policy {
	all := []string{policy.Any}
	return &Policy{
		Default: &PluginPolicy{
			Provides: all, Requires: all, Capabilities: all, HostPlugins: all,
			AllowOwnAddress: true, AllowUnproven: true,
		},
		AllowMultiple: all,
		Public:        all,
	}
}

// validate names the first field that is wrong.
func (p *Policy) validate() error {
	if p == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.Plugins)) {
		if err := p.Plugins[name].validate(fmt.Sprintf("Policy.Plugins[%q]", name)); err != nil {
			return err
		}
		if name == "" {
			return fieldError("Policy.Plugins", "has an entry for the empty name; write a self id or a certificate identity")
		}
	}
	return p.validateRest()
}

// validateFor refuses what a host of a configuration cannot do.
func (p *Policy) validateFor(allowInsecure bool) error {
	for _, check := range []func() error{p.validate, p.validateNames} {
		if err := check(); err != nil {
			return err
		}
	}
	if p == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.Plugins)) {
		if err := p.Plugins[name].validateEndpoint(fmt.Sprintf("Policy.Plugins[%q]", name), allowInsecure); err != nil {
			return err
		}
	}
	if p.Default == nil {
		return nil
	}
	return p.Default.validateEndpoint("Policy.Default", allowInsecure)
}

func (p PluginPolicy) validateEndpoint(field string, allowInsecure bool) error {
	if p.Endpoint == "" {
		return nil
	}
	u, err := parseHostURL(p.Endpoint, allowInsecure)
	if err != nil {
		return fieldError(field+".Endpoint", "%v", err)
	}
	if isEverywhere(u.Hostname()) {
		return fieldError(field+".Endpoint", "%q is for listening; write an address or a name at which the host reaches the plugin", u.Hostname())
	}
	return nil
}

// validateHostPlugins refuses the names that the constants of the admin services have in Go,
// which name nothing in a policy.
func validateHostPlugins(plugin string, names []string) error {
	constants := map[string]string{"connectplugin.AdminRead": AdminRead, "connectplugin.AdminChange": AdminChange}
	for i, name := range names {
		if name == "" {
			return fieldError(fmt.Sprintf("%s.HostPlugins[%d]", plugin, i),
				"is empty; write a name of ServeConfig.Plugins, %q for all, or remove it", policy.Any)
		}
		if value, ok := constants[name]; ok {
			return fieldError(fmt.Sprintf("%s.HostPlugins[%d]", plugin, i), "%q is the name of a constant; write its value, %q", name, value)
		}
	}
	return nil
}

// unknownHostPlugins returns the fields whose entries name no plugin of the host, with the entries.
func (p *Policy) unknownHostPlugins(known func(string) bool) (fields []string) {
	if p == nil {
		return nil
	}
	look := func(field string, rules *PluginPolicy) {
		for i, name := range rules.HostPlugins {
			if name != policy.Any && !known(name) {
				fields = append(fields, fmt.Sprintf("%s.HostPlugins[%d]: %q", field, i, name))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Plugins)) {
		rules := p.Plugins[name]
		look(fmt.Sprintf("Policy.Plugins[%q]", name), &rules)
	}
	if p.Default != nil {
		look("Policy.Default", p.Default)
	}
	return fields
}

func (p *Policy) validateRest() error {
	for i, procedure := range p.Idempotent {
		clean := proxy.CheckPath(procedure+"/") == nil && !strings.Contains(procedure, "*") && strings.Count(procedure, "/") == 2
		if procedure != policy.Any && !clean {
			return fieldError(fmt.Sprintf("Policy.Idempotent[%d]", i), `%q is no procedure; write "/package.Service/Method"`, procedure)
		}
	}
	for i, name := range p.AllowMultiple {
		if err := ValidateServiceType(name); err != nil && name != policy.Any {
			return fieldError(fmt.Sprintf("Policy.AllowMultiple[%d]", i), "%v", err)
		}
	}
	switch {
	case p.Default == nil:
		return nil
	case len(p.Default.SelfIDs) > 0:
		return fieldError("Policy.Default.SelfIDs",
			"is about the holder of one certificate; write it into the entry of its identity in Policy.Plugins")
	}
	return p.Default.validate("Policy.Default")
}

func (p PluginPolicy) validate(field string) error {
	if err := p.Secret.validate(field + ".Secret"); err != nil {
		return err
	}
	if p.MaxInstances < 0 {
		return fieldError(field+".MaxInstances", isNegative)
	}
	if _, err := certs.ParsePins(p.PinnedKeys); err != nil {
		return fieldError(field+".PinnedKeys", "%v", err)
	}
	if err := p.validateEndpoint(field, true); err != nil {
		return err
	}
	if err := validateProcedures(field, p.Procedures); err != nil {
		return err
	}
	if err := validateHostPlugins(field, p.HostPlugins); err != nil {
		return err
	}
	for _, list := range []struct {
		name  string
		names []string
		check func(string) error
	}{
		{"Provides", p.Provides, ValidateServiceType},
		{"Requires", p.Requires, ValidateServiceType},
		{"Capabilities", p.Capabilities, ValidateServiceType},
		{"SelfIDs", p.SelfIDs, ValidateSelfID},
	} {
		for i, name := range list.names {
			if name == policy.Any {
				continue
			}
			if err := list.check(name); err != nil {
				return fieldError(fmt.Sprintf("%s.%s[%d]", field, list.name, i), "%v", err)
			}
		}
	}
	return nil
}

func validateProcedures(plugin string, procedures []string) error {
	for i, procedure := range procedures {
		name := strings.TrimSuffix(procedure, "/")
		depth, service := strings.Count(name, "/"), name != procedure
		clean := proxy.CheckPath(name) == nil && !strings.Contains(name, "*") && (depth == 1) == service && depth <= 2
		if procedure != policy.Any && !clean {
			return fieldError(fmt.Sprintf("%s.Procedures[%d]", plugin, i),
				`%q is neither; write "/package.Service/Method" or "/package.Service/"`, procedure)
		}
	}
	return nil
}

func (a HandshakeAuth) validate() error {
	if a.ReplayCacheSize < 0 {
		return fieldError("HandshakeAuth.ReplayCacheSize", isNegative)
	}
	return checkDuration("HandshakeAuth.MaxClockSkew", a.MaxClockSkew, leastDuration)
}

// compileRules expects a policy that validate accepted.
func compileRules(p PluginPolicy) *policy.Rules {
	r := &policy.Rules{
		Provides: policy.NewSet(p.Provides), Requires: policy.NewSet(p.Requires),
		Capabilities: policy.NewSet(p.Capabilities), HostPlugins: policy.NewSet(p.HostPlugins),
		Procedures:      policy.NewProcedures(p.Procedures),
		AllowOwnAddress: p.AllowOwnAddress, Secret: policy.Secret(slices.Clone(p.Secret)),
		Certificates: policy.NewSet(p.Certificates), AllowUnproven: p.AllowUnproven, MaxInstances: p.MaxInstances,
		SelfIDs: policy.NewSet(p.SelfIDs),
	}
	r.Pins, _ = certs.ParsePins(p.PinnedKeys) // validated before
	if p.Endpoint != "" {
		if u, err := parseHostURL(p.Endpoint, true); err == nil { // validated before
			r.Endpoint = u.String()
		}
	}
	return r
}

// compilePolicy expects a policy that validate accepted; certified says that the host's
// Authority certifies self ids. Nil compiles to a book that grants nothing.
func compilePolicy(p *Policy, certified bool) *policy.Book {
	if p == nil {
		return &policy.Book{}
	}
	b := &policy.Book{
		Plugins:       make(map[string]*policy.Rules, len(p.Plugins)),
		Holders:       map[string]*policy.Rules{},
		AllowMultiple: policy.NewSet(p.AllowMultiple), Idempotent: policy.NewSet(p.Idempotent), Public: policy.NewSet(p.Public),
	}
	for name, pp := range p.Plugins {
		rules := compileRules(pp)
		bySelfID, byCertificate := pp.isFor(name, certified)
		if bySelfID {
			b.Plugins[name] = rules
		}
		if byCertificate {
			b.Holders[name] = rules
		}
	}
	if p.Default != nil {
		b.Default = compileRules(*p.Default)
	}
	b.Note()
	reserveEndpoints(b)
	b.Distinguish()
	return b
}

// isFor says what an entry's name is that of: a self id, a certificate identity, or both.
func (p PluginPolicy) isFor(name string, certified bool) (selfID, certificate bool) {
	switch {
	case len(p.SelfIDs) > 0, ValidateSelfID(name) != nil:
		return false, true
	case certified, len(p.Certificates) > 0, p.AllowUnproven:
		return true, false
	}
	return true, true
}

// validateNames refuses certificate identities in a policy that no certificate can
// have, and those that every certificate would.
func (p *Policy) validateNames() error {
	if p == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.Plugins)) {
		field := fmt.Sprintf("Policy.Plugins[%q]", name)
		if name == policy.Any {
			return fieldError(field, "is no wildcard; write the policy of those that no entry names into Policy.Default")
		}
		if err := validateIdentityName(field, name); err != nil {
			return err
		}
		if !headers.ValidValue(name) || strings.TrimSpace(name) != name {
			return fieldError(field, "has characters that no header field can state; write a self id or a certificate identity")
		}
		if err := validateCertificates(field, p.Plugins[name].Certificates); err != nil {
			return err
		}
	}
	if p.Default == nil {
		return nil
	}
	return validateCertificates("Policy.Default", p.Default.Certificates)
}

func validateCertificates(plugin string, identities []string) error {
	for i, identity := range identities {
		field := fmt.Sprintf("%s.Certificates[%d]", plugin, i)
		switch identity {
		case "":
			return fieldError(field, "is empty; write the identity of a certificate")
		case policy.Any:
			return fieldError(field, "would let whoever has a certificate be this plugin; write the identities that it may have, "+
				"or set HandshakeAuth.RequireCertificate where every plugin needs a certificate and something else proves who it is")
		}
		if err := validateIdentityName(field, identity); err != nil {
			return err
		}
	}
	return nil
}

// settings is what the host's configuration says to every service, with the
// defaults. It is derived once and immutable.
type settings struct {
	tokenTTL, grantTTL time.Duration
	limits             Limits
	rateLimiter        RateLimiter // nil for the hub's own

	cookieKey, cookieValue string
	versions               versionRange
	deprecatedBelow        int32
	serverMetadata         map[string]string
	passed                 []string // names of metadata that the operator lets pass
	handshake              HandshakeAuth
	authority              *Authority  // may be nil
	serverTLS              *tls.Config // as configured; nil in plaintext and where the authority makes it
	pluginTLS              *tls.Config // may be nil
	hosts                  []string    // as configured
	allowInsecure          bool
	chain                  *authChain   // nil without auth providers
	rules                  *policy.Book // to begin with
	noPolicy               bool         // none was configured

	audit      *auditor
	observer   Observer                // nil for nobody
	traffic    *tally.Table            // calls between plugins, for the admin service; nil without it
	calls      *tally.Feed[RoutedCall] // the same, one by one
	log        *slog.Logger
	lines      *held.Queue[held.Line] // of that, during a change of policy
	configured *slog.Logger           // as configured, nil for none: see danger
	vigil      *certs.Vigil           // over certificates that are about to end
}

// warnConfig tells the operator what is dangerous or useless about the configuration.
func warnConfig(s *settings) {
	log := danger(s.configured)
	if s.allowInsecure {
		warnPlaintext(log, "serving plaintext: AllowInsecure is set; use it for development only")
	}
	warnOpen(log, s.rules, s.allowInsecure)
	if s.rules.Default == nil && len(s.rules.Plugins) == 0 {
		what := "an empty policy"
		if s.noPolicy {
			what = "no policy"
		}
		log.Warn(what + ": no plugin is accepted until ServeConfig.Policy allows it; OpenPolicy() allows all, for development")
	}
}

// warnOpen tells the operator that a policy lets anybody in.
func warnOpen(log *slog.Logger, rules *policy.Book, insecure bool) {
	d := rules.Default
	if d == nil || !d.AllowUnproven {
		return
	}
	if insecure && d.Open() {
		log.Warn("plaintext and an open policy: any service on a plugin's address can pass for the plugin; " +
			"use TLS, or name the Endpoint of each plugin in its PluginPolicy")
	}
	log.Warn("open policy: whoever reaches the host is accepted as any plugin that Policy.Plugins does not name")
}

func (s *settings) storeConfig() tokenstore.Config {
	return tokenstore.Config{
		TTL:                  s.tokenTTL,
		Grace:                s.limits.TokenGrace,
		MaxTotal:             s.limits.MaxIdentities,
		MaxPerSelf:           s.limits.MaxIdentitiesPerSelfID,
		MaxPerPeer:           s.limits.MaxIdentitiesPerPeer,
		MaxGrantsPerIdentity: s.limits.MaxGrantsPerIdentity,
	}
}
