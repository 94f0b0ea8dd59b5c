package policy

import "strings"

// Procedures are those that a plugin's types without a path open. The zero value names none.
type Procedures struct {
	exact    map[string]struct{}
	services []string // with the final slash
	all      bool
}

// NewProcedures makes them of a list of procedures, "/package.Service/Method", and services,
// "/package.Service/", in which [Any] is every one.
func NewProcedures(list []string) Procedures {
	p := Procedures{exact: make(map[string]struct{}, len(list))}
	for _, name := range list {
		switch {
		case name == Any:
			p.all = true
		case strings.HasSuffix(name, "/"):
			p.services = append(p.services, name)
		default:
			p.exact[name] = struct{}{}
		}
	}
	return p
}

// Named reports whether there are any.
func (p Procedures) Named() bool { return p.all || len(p.services) > 0 || len(p.exact) > 0 }

// Has reports whether a path is one of them.
func (p Procedures) Has(path string) bool {
	if _, ok := p.exact[path]; ok || p.all {
		return true
	}
	for _, service := range p.services {
		if rest, ok := strings.CutPrefix(path, service); ok && rest != "" && !strings.Contains(rest, "/") {
			return true
		}
	}
	return false
}
