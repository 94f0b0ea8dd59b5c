package connectplugin

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// anything in a list of a policy allows every name.
const anything = "*"

// Policy says what plugins may do. It is copied when a host takes it over. Nil
// grants nothing.
type Policy struct {
	// Plugins holds the policy of each plugin by self id, or by the identity of
	// its client certificate (see [CertificateIdentity]), which then is its
	// proof too.
	Plugins map[string]PluginPolicy
	// Default applies to a self id that Plugins does not name. Nil refuses it.
	Default *PluginPolicy
	// AllowMultiple lists the service types that several self ids may provide
	// at the same time; "*" is every type. Any other type belongs to its first
	// approved provider.
	AllowMultiple []string
	// Idempotent lists procedures of plugins, for example "/acme.v1.Store/Get",
	// that the router may send to another provider of the same type, version
	// and path when the one that was asked cannot be reached and nothing was
	// sent; "*" is every one. Side-effect-free GETs of Connect are anyway.
	Idempotent []string
	// Public lists the host's own plugin services that anybody may call without
	// authentication; "*" is every one.
	Public []string
}

// PluginPolicy says what one plugin may do and how it proves itself. What it
// declares in its handshake narrows it further. The zero value allows nothing
// and refuses the handshake.
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
	// every one.
	HostPlugins []string
	// Endpoint is the base URL at which the host dials the plugin, for example
	// "https://10.0.0.7:9443". Empty means none, or see AllowOwnAddress.
	Endpoint string
	// AllowOwnAddress lets the plugin name its own endpoint when it registers
	// (metadata key "base_url"), on the address that it registers from and no
	// other.
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
}

// OpenPolicy returns a policy that allows every plugin everything without
// proof. It is for development only.
func OpenPolicy() *Policy {
	all := []string{anything}
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
	for i, procedure := range p.Idempotent {
		clean := proxy.CheckPath(procedure) == nil && strings.Count(procedure, "/") == 2 && !strings.HasSuffix(procedure, "/")
		if procedure != anything && !clean {
			return fieldError(fmt.Sprintf("Policy.Idempotent[%d]", i), `%q is no procedure; write "/package.Service/Method"`, procedure)
		}
	}
	if p.Default != nil {
		return p.Default.validate("Policy.Default")
	}
	return nil
}

func (p PluginPolicy) validate(field string) error {
	if p.Secret != nil && len(p.Secret) < minSecretBytes {
		return fieldError(field+".Secret", "has %d bytes; write at least %d random ones", len(p.Secret), minSecretBytes)
	}
	if p.MaxInstances < 0 {
		return fieldError(field+".MaxInstances", "is negative")
	}
	if _, err := certs.ParsePins(p.PinnedKeys); err != nil {
		return fieldError(field+".PinnedKeys", "%v", err)
	}
	if p.Endpoint != "" {
		if _, err := parseHostURL(p.Endpoint, true); err != nil {
			return fieldError(field+".Endpoint", "%v", err)
		}
	}
	for _, list := range []struct {
		name  string
		types []string
	}{{"Provides", p.Provides}, {"Requires", p.Requires}, {"Capabilities", p.Capabilities}} {
		for i, t := range list.types {
			if t == anything {
				continue
			}
			if err := ValidateServiceType(t); err != nil {
				return fieldError(fmt.Sprintf("%s.%s[%d]", field, list.name, i), "%v", err)
			}
		}
	}
	return nil
}

// nameSet is a compiled list of names.
type nameSet struct {
	all   bool
	names map[string]struct{}
}

func newNameSet(names []string) nameSet {
	s := nameSet{names: make(map[string]struct{}, len(names))}
	for _, n := range names {
		if n == anything {
			s.all = true
			continue
		}
		s.names[n] = struct{}{}
	}
	return s
}

func (s nameSet) has(name string) bool {
	if s.all {
		return true
	}
	_, ok := s.names[name]
	return ok
}

// list returns the names, "*" for all of them.
func (s nameSet) list() []string {
	if s.all {
		return []string{anything}
	}
	return slices.Sorted(maps.Keys(s.names))
}

// pluginRules is the compiled policy of one plugin.
type pluginRules struct {
	provides, requires, capabilities, hostPlugins nameSet
	endpoint                                      *url.URL
	allowOwnAddress                               bool
	secret                                        Secret
	certificates                                  nameSet
	pins                                          []certs.Pin
	allowUnproven                                 bool
	maxInstances                                  int
}

func compileRules(p PluginPolicy) *pluginRules {
	r := &pluginRules{
		provides: newNameSet(p.Provides), requires: newNameSet(p.Requires),
		capabilities: newNameSet(p.Capabilities), hostPlugins: newNameSet(p.HostPlugins),
		allowOwnAddress: p.AllowOwnAddress, secret: slices.Clone(p.Secret),
		certificates: newNameSet(p.Certificates), allowUnproven: p.AllowUnproven, maxInstances: p.MaxInstances,
	}
	r.pins, _ = certs.ParsePins(p.PinnedKeys) // validated before
	if p.Endpoint != "" {
		r.endpoint, _ = parseHostURL(p.Endpoint, true) // validated before
	}
	return r
}

// ruleBook is a compiled, immutable policy.
type ruleBook struct {
	plugins       map[string]*pluginRules
	byDefault     *pluginRules
	allowMultiple nameSet
	idempotent    nameSet
	public        nameSet
}

// compilePolicy expects a policy that validate accepted. Nil compiles to a book
// that grants nothing.
func compilePolicy(p *Policy) *ruleBook {
	b := &ruleBook{plugins: map[string]*pluginRules{}}
	if p == nil {
		return b
	}
	for name, pp := range p.Plugins {
		b.plugins[name] = compileRules(pp)
	}
	if p.Default != nil {
		b.byDefault = compileRules(*p.Default)
	}
	b.allowMultiple, b.public, b.idempotent = newNameSet(p.AllowMultiple), newNameSet(p.Public), newNameSet(p.Idempotent)
	return b
}

// rules returns the rules of a self id or, where it has none, of a certificate
// identity; byCertificate says that the latter matched. Nil refuses.
func (b *ruleBook) rules(selfID, certIdentity string) (rules *pluginRules, byCertificate bool) {
	if r, ok := b.plugins[selfID]; ok {
		return r, false
	}
	if certIdentity != "" {
		if r, ok := b.plugins[certIdentity]; ok {
			return r, true
		}
	}
	return b.byDefault, false
}
