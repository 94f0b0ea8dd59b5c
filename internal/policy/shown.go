package policy

import (
	"maps"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// shown are the certificates that the rules of a book name, by identity and by key.
type shown struct {
	identities map[string]struct{}
	keys       map[certs.Pin]struct{}
}

// Note takes note of the certificates that the rules name, after these were set. It
// belongs to the making of a book.
func (b *Book) Note() {
	b.shown = shown{map[string]struct{}{}, map[certs.Pin]struct{}{}}
	for identity := range b.Holders {
		b.shown.identities[identity] = struct{}{}
	}
	for _, all := range []map[string]*Rules{b.Plugins, b.Holders, {"": b.Default}} {
		for rules := range maps.Values(all) {
			if rules == nil {
				continue
			}
			maps.Copy(b.shown.identities, rules.Certificates.names)
			for _, key := range rules.Pins {
				b.shown.keys[key] = struct{}{}
			}
		}
	}
	delete(b.shown.identities, "") // is nobody's
}

// Names reports whether the book names a certificate as that of a plugin, by its
// identity or its key.
func (b *Book) Names(identity string, key certs.Pin) bool {
	_, byIdentity := b.shown.identities[identity]
	_, byKey := b.shown.keys[key]
	return byIdentity || byKey
}

// Certificates calls f with each certificate that the book names: with an identity, or with a key.
func (b *Book) Certificates(f func(identity string, key certs.Pin)) {
	for identity := range b.shown.identities {
		f(identity, certs.Pin{})
	}
	for key := range b.shown.keys {
		f("", key)
	}
}
