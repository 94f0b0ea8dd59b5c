// Package depgraph knows which plugin needs which: in what order they start, and
// what the removal of one brings down.
//
// A plugin provides service types in a version and requires others under a
// constraint. Any plugin that provides an allowed version satisfies a
// requirement, except the one that has it: what a plugin requires must be there
// before it starts.
package depgraph

import (
	"slices"
	"sync"

	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// Provision is a service type that a plugin provides.
type Provision struct {
	Type, Version string
}

// Requirement is a service type that a plugin uses.
type Requirement struct {
	Type string
	// MinVersion is a minimum version or a constraint, see [semrange.ParseConstraint]. What
	// cannot be read is satisfied by nobody, and [Graph.StartupOrder] says why.
	MinVersion string
	// Required says that the plugin cannot start without; otherwise it merely likes to start
	// after.
	Required bool
}

// Node is a plugin.
type Node struct {
	// RuntimeID names the plugin in the graph, SelfID says what kind it is.
	RuntimeID, SelfID string
	Provides          []Provision
	Requires          []Requirement
}

// Graph is a set of plugins. The zero value is empty and ready; it is safe for
// concurrent use and shares nothing with its callers.
type Graph struct {
	mu    sync.RWMutex
	nodes []*node // in the order in which they were added
	byID  map[string]*node
}

// node is a plugin with its versions and constraints read.
type node struct {
	id       string
	provides map[string][]semrange.Version
	types    []string // what it provides, each once
	requires []need
}

// need is a requirement. A broken constraint leaves err.
type need struct {
	serviceType string
	text        string
	constraint  semrange.Constraint
	err         error
	required    bool
}

// Add adds a plugin, or replaces the one of the same runtime id in its place.
func (g *Graph) Add(n Node) {
	added := read(n)

	g.mu.Lock()
	defer g.mu.Unlock()

	if g.byID == nil {
		g.byID = make(map[string]*node)
	}

	if old := g.byID[n.RuntimeID]; old != nil {
		g.nodes[slices.Index(g.nodes, old)] = added
	} else {
		g.nodes = append(g.nodes, added)
	}

	g.byID[n.RuntimeID] = added
}

// Remove removes a plugin and reports whether it was there.
func (g *Graph) Remove(runtimeID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()

	old := g.byID[runtimeID]
	if old == nil {
		return false
	}

	delete(g.byID, runtimeID)
	g.nodes = slices.Delete(g.nodes, slices.Index(g.nodes, old), slices.Index(g.nodes, old)+1)

	return true
}

// snapshot returns the plugins, which never change, in order.
func (g *Graph) snapshot() []*node {
	g.mu.RLock()
	defer g.mu.RUnlock()

	return slices.Clone(g.nodes)
}

func read(n Node) *node {
	out := &node{id: n.RuntimeID, provides: make(map[string][]semrange.Version, len(n.Provides))}

	for _, p := range n.Provides {
		version, _ := semrange.ParseVersion(p.Version) // what is no version is only allowed by any
		if _, again := out.provides[p.Type]; !again {
			out.types = append(out.types, p.Type)
		}

		out.provides[p.Type] = append(out.provides[p.Type], version)
	}

	for _, r := range n.Requires {
		constraint, err := semrange.ParseConstraint(r.MinVersion)
		out.requires = append(out.requires, need{
			serviceType: r.Type, text: r.MinVersion, constraint: constraint, err: err, required: r.Required,
		})
	}

	return out
}

// satisfies reports whether the plugin provides what a requirement asks for.
func (n *node) satisfies(r need) bool {
	return r.err == nil && slices.ContainsFunc(n.provides[r.serviceType], r.constraint.AllowsVersion)
}
