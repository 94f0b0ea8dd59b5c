// Package former remembers places that were left for others, so that who comes to one of them with
// what was made there is sent on.
package former

// Places are the places that were left, each with the path below which it was used. The zero value has none. Its owner
// guards it.
type Places struct {
	uses uint64
	at   map[string]*place
}

type place struct {
	path string
	used uint64 // when it was last, in uses
}

// Most is how many places are remembered. The one that nobody came to for the longest goes first.
const Most = 1024

// Left adds a place.
func (p *Places) Left(name, path string) {
	if p.at == nil {
		p.at = map[string]*place{}
	}
	if _, known := p.at[name]; !known && len(p.at) >= Most {
		delete(p.at, p.idlest())
	}
	p.uses++
	p.at[name] = &place{path, p.uses}
}

// Known reports whether a place was left, and below which path it was used then. It takes note that somebody came to it.
func (p *Places) Known(name string) (path string, known bool) {
	at, known := p.at[name]
	if !known {
		return "", false
	}
	p.uses++
	at.used = p.uses
	return at.path, true
}

func (p *Places) idlest() string {
	idlest, least := "", p.uses+1
	for name, at := range p.at {
		if at.used < least {
			idlest, least = name, at.used
		}
	}
	return idlest
}
