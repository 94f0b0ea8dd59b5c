package policy

// Named is an endpoint that policy names for a plugin. Nobody else names it, even before
// the plugin is there.
type Named struct {
	// Plugin is the name that the policy is written for, Rules are the plugin's.
	Plugin string
	Rules  *Rules
	// Host and Port are where it is.
	Host, Port string
}

// Reserve takes note of an endpoint that policy names. It belongs to the making of a
// book.
func (b *Book) Reserve(n Named) {
	if b.named == nil {
		b.named = make(map[string][]Named)
	}
	b.named[n.Port] = append(b.named[n.Port], n)
}

// Reserved returns whom policy names for a port at a host, other than the subject itself;
// at says whether a host that policy names is that one.
func (b *Book) Reserved(s Subject, port string, at func(host string) bool) (plugin string, ok bool) {
	own := b.Of(s)
	for _, n := range b.named[port] {
		if n.Rules != own && at(n.Host) {
			return n.Plugin, true
		}
	}
	return "", false
}
