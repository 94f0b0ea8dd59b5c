// Package policy decides what plugins may do, by rules that are compiled once and
// never change: a [Book] holds the [Rules] of every plugin, and says of a [Subject]
// what it declared and its rules allow. A policy is replaced by another book.
package policy

// Book is a compiled policy. The zero value knows no plugin and allows nothing. It
// must not be changed once it is used.
type Book struct {
	// Plugins holds the rules of plugins by self id or certificate identity.
	Plugins map[string]*Rules
	// Default are the rules of every other plugin; nil refuses it.
	Default *Rules
	// AllowMultiple are the service types that several self ids may provide.
	AllowMultiple Set
	// Idempotent are the procedures that may be sent to another provider.
	Idempotent Set
	// Public are the host's own plugins that anybody may call.
	Public Set

	named  map[string][]Named // endpoints, by port
	owners owners
}

// Subject is a plugin as policy sees it: how it proved who it is, and what it
// declared.
type Subject struct {
	SelfID      string
	Certificate string // the identity in the certificate that it showed, empty for none

	Provides, Requires Set // declared
}

// Rules returns the rules of a self id or, where it has none, of a certificate
// identity; byCertificate says that the latter matched. Nil refuses.
func (b *Book) Rules(selfID, certificate string) (rules *Rules, byCertificate bool) {
	if r, ok := b.Plugins[selfID]; ok {
		return r, false
	}
	if certificate != "" {
		if r, ok := b.Plugins[certificate]; ok {
			return r, true
		}
	}
	return b.Default, false
}

// Of returns the rules of a subject, nil where policy does not know it.
func (b *Book) Of(s Subject) *Rules {
	r, _ := b.Rules(s.SelfID, s.Certificate)
	return r
}

// MayProvide reports whether a subject may register a service type.
func (b *Book) MayProvide(s Subject, serviceType string) bool {
	r := b.Of(s)
	return r != nil && s.Provides.Has(serviceType) && r.Provides.Has(serviceType)
}

// MayRequire reports whether a subject may discover, watch and call a service type.
func (b *Book) MayRequire(s Subject, serviceType string) bool {
	r := b.Of(s)
	return r != nil && s.Requires.Has(serviceType) && r.Requires.Has(serviceType)
}

// MayUse reports whether a subject may be granted a capability.
func (b *Book) MayUse(s Subject, capability string) bool {
	r := b.Of(s)
	return r != nil && r.Capabilities.Has(capability)
}

// MayCallHostPlugin reports whether a subject may call one of the host's own
// plugins.
func (b *Book) MayCallHostPlugin(s Subject, name string) bool {
	r := b.Of(s)
	return r != nil && r.HostPlugins.Has(name)
}

// Rights are what a subject may do, as sorted names; [Any] alone is everything.
type Rights struct {
	Provides, Requires, Capabilities []string
}

// Rights lists the effective rights of a subject: what it declared and its rules
// allow.
func (b *Book) Rights(s Subject) Rights {
	r := b.Of(s)
	if r == nil {
		return Rights{}
	}
	return Rights{
		Provides:     s.Provides.Intersect(r.Provides),
		Requires:     s.Requires.Intersect(r.Requires),
		Capabilities: r.Capabilities.List(),
	}
}
