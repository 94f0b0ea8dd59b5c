// Package policy decides what plugins may do, by rules that are compiled once and
// never change: a [Book] holds the [Rules] of every plugin, and says of a [Subject]
// what it declared and its rules allow. A policy is replaced by another book.
package policy

// Book is a compiled policy. The zero value knows no plugin and allows nothing. It
// must not be changed once it is used.
type Book struct {
	// Plugins holds the rules of plugins by self id.
	Plugins map[string]*Rules
	// Holders holds the rules of plugins by the identity of their certificates.
	Holders map[string]*Rules
	// Default are the rules of every other plugin; nil refuses it.
	Default *Rules
	// AllowMultiple are the service types that several plugins may provide.
	AllowMultiple Set
	// Idempotent are the procedures that may be sent to another provider.
	Idempotent Set
	// Public are the host's own plugins that anybody may call.
	Public Set

	named  map[string][]Named // endpoints, by port
	shown  shown              // certificates that rules name
	owners owners
}

// Subject is a plugin as policy sees it: how it proved who it is, what it declared, and
// what is left of that.
type Subject struct {
	SelfID      string // as the plugin claimed
	Certificate string // the identity in the certificate that it showed, empty for none

	Provides, Requires Set // declared
	// Within is what the operator narrowed Provides to. Nil leaves it as it is.
	Within *Set
}

// provides reports whether a subject declared a service type and was left it.
func (s Subject) provides(serviceType string) bool {
	return s.Provides.Has(serviceType) && (s.Within == nil || s.Within.Has(serviceType))
}

// Match is whom a book knows a plugin as.
type Match struct {
	// Name is the plugin's one name, for everything that is counted, owned, recorded and
	// told to others: the self id where policy is written for that or for nobody in
	// particular, and the certificate identity where it is written for that, whatever
	// self id its holder claims.
	Name string
	// Rules are the plugin's. Nil refuses it.
	Rules *Rules
	// ByCertificate says that the rules are those of the certificate identity, which
	// proves the name.
	ByCertificate bool
}

// Match returns whom the book knows a self id with a certificate identity as. Nobody
// claims the name of a plugin that is known by its certificate.
func (b *Book) Match(selfID, certificate string) Match {
	held, holds := b.Holders[certificate]
	holds = holds && certificate != ""
	if r, ok := b.Plugins[selfID]; ok {
		return Match{Name: selfID, Rules: r, ByCertificate: holds && certificate == selfID}
	}
	if holds {
		return Match{Name: certificate, Rules: held, ByCertificate: true}
	}
	if _, taken := b.Holders[selfID]; taken {
		return Match{Name: selfID}
	}
	return Match{Name: selfID, Rules: b.Default}
}

// Of returns the rules of a subject, nil where policy does not know it.
func (b *Book) Of(s Subject) *Rules { return b.Match(s.SelfID, s.Certificate).Rules }

// MayProvide reports whether a subject may register a service type.
func (b *Book) MayProvide(s Subject, serviceType string) bool {
	r := b.Of(s)
	return r != nil && s.provides(serviceType) && r.Provides.Has(serviceType)
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

// MayAdminister reports whether a subject may call one of the host's own plugins that changes
// or shows the host, which [Any] does not stand for.
func (b *Book) MayAdminister(s Subject, name string) bool {
	r := b.Of(s)
	return r != nil && r.HostPlugins.Names(name)
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
	provides := s.Provides
	if s.Within != nil {
		provides = NewSet(provides.Intersect(*s.Within))
	}
	return Rights{
		Provides:     provides.Intersect(r.Provides),
		Requires:     s.Requires.Intersect(r.Requires),
		Capabilities: r.Capabilities.List(),
	}
}
