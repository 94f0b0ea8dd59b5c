// Package former remembers places that were left for others, so that who comes to one of them with
// what was made there is sent on.
package former

// Places are the places that were left. The zero value has none. Its owner guards it.
type Places struct {
	uses uint64
	at   map[string]uint64 // when each was used last, in uses
}

// Most is how many places are remembered. The one that nobody came to for the longest goes first.
const Most = 1024

// Left adds a place.
func (p *Places) Left(place string) {
	if p.at == nil {
		p.at = map[string]uint64{}
	}
	if _, known := p.at[place]; !known && len(p.at) >= Most {
		delete(p.at, p.idlest())
	}
	p.uses++
	p.at[place] = p.uses
}

// Known reports whether a place was left, and takes note that somebody came to it.
func (p *Places) Known(place string) bool {
	_, known := p.at[place]
	if known {
		p.uses++
		p.at[place] = p.uses
	}
	return known
}

func (p *Places) idlest() string {
	idlest, least := "", p.uses+1
	for place, used := range p.at {
		if used < least {
			idlest, least = place, used
		}
	}
	return idlest
}
