package policy

import "github.com/masegraye/connect-plugin-go/internal/certs"

// owners are the rules that name certificates and keys: the only ones, or nil where there
// are several.
type owners struct {
	certificates map[string]*Rules
	pins         map[certs.Pin]*Rules
}

// Distinguish takes note of the certificates and keys that each plugin alone has. It belongs
// to the making of a book, when all of its rules are in it.
func (b *Book) Distinguish() {
	b.owners = owners{make(map[string]*Rules), make(map[certs.Pin]*Rules)}
	for name, r := range b.Plugins {
		enter(b.owners.certificates, name, r)
		b.enter(r)
	}
	if b.Default != nil {
		b.enter(b.Default)
	}
}

func (b *Book) enter(r *Rules) {
	for name := range r.Certificates.names {
		enter(b.owners.certificates, name, r)
	}
	for _, pin := range r.Pins {
		enter(b.owners.pins, pin, r)
	}
}

func enter[K comparable](of map[K]*Rules, key K, r *Rules) {
	if owner, known := of[key]; known && owner != r {
		of[key] = nil
		return
	}
	of[key] = r
}

// Telling is what policy says of whether a certificate tells a plugin from others.
type Telling uint8

// What it says: nothing, that it is the plugin's alone, or that others have it too.
const (
	TellsNothing Telling = iota
	TellsApart
	TellsShared
)

// Tells says whether the certificate with which a subject has to answer is nobody else's: by
// its identity, or by each of its keys.
func (b *Book) Tells(s Subject) Telling {
	r := b.Of(s)
	if r == nil {
		return TellsNothing
	}
	owner, named := b.owners.certificates[s.Certificate]
	own := r != b.Default // that is for any number of plugins
	switch {
	case s.Certificate != "" && named && owner == r && own, own && b.ownPins(r):
		return TellsApart
	case s.Certificate != "" && named:
		return TellsShared
	}
	return TellsNothing
}

// PinnedByOthers reports whether others than a subject are known by a key.
func (b *Book) PinnedByOthers(s Subject, key certs.Pin) bool {
	owner, pinned := b.owners.pins[key]
	return pinned && owner != b.Of(s)
}

func (b *Book) ownPins(r *Rules) bool {
	for _, pin := range r.Pins {
		if b.owners.pins[pin] != r {
			return false
		}
	}
	return len(r.Pins) > 0
}

// Open reports whether everybody can be a plugin that may do everything.
func (b *Book) Open() bool { return b.Default != nil && b.Default.Open() }

// Open reports whether the rules are those of an open policy: whoever comes may do
// everything, and nothing proves who it is.
func (r *Rules) Open() bool {
	return r.AllowUnproven && r.AllowOwnAddress && r.Provides.all && r.Requires.all
}
