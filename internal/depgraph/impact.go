package depgraph

import "slices"

// ImpactAnalysis says what the removal of a plugin brings down. Its lists are
// sorted and hold each name once.
type ImpactAnalysis struct {
	// TargetPlugin is the runtime id of the plugin that would go.
	TargetPlugin string
	// AffectedPlugins are the runtime ids of those that could not go on, directly or because
	// of another: a requirement would be left without a provider.
	AffectedPlugins []string
	// AffectedServices are the types that nobody would provide any more.
	AffectedServices []string
	// OptionalImpact are the runtime ids of those that would go on without something
	// optional.
	OptionalImpact []string
}

// Impact says what would happen if a plugin were removed. For a plugin that is
// not in the graph the answer is empty but for the target.
func (g *Graph) Impact(runtimeID string) *ImpactAnalysis {
	out := &ImpactAnalysis{TargetPlugin: runtimeID}
	p := newPlan(g.snapshot())

	target := slices.IndexFunc(p.nodes, func(n *node) bool { return n.id == runtimeID })
	if target < 0 {
		return out
	}

	down := p.down(target)

	for i, n := range p.nodes {
		switch {
		case i == target:
		case down[i]:
			out.AffectedPlugins = append(out.AffectedPlugins, n.id)
		case p.loses(i, down, false):
			out.OptionalImpact = append(out.OptionalImpact, n.id)
		}
	}

	out.AffectedServices = p.lost(down)
	slices.Sort(out.AffectedPlugins)
	slices.Sort(out.OptionalImpact)

	return out
}

// down returns who goes down with a plugin: whoever loses a requirement, until
// nobody does any more.
func (p *plan) down(target int) []bool {
	down := make([]bool, len(p.nodes))
	down[target] = true

	for again := true; again; {
		again = false

		for i := range p.nodes {
			if !down[i] && p.loses(i, down, true) {
				down[i], again = true, true
			}
		}
	}

	return down
}

// loses reports whether a plugin has a requirement of that kind that another one
// satisfies now and none would.
func (p *plan) loses(plugin int, down []bool, required bool) bool {
	for j, r := range p.nodes[plugin].requires {
		if r.required != required {
			continue
		}

		now, left := 0, 0

		for _, other := range p.providers[plugin][j] {
			if other == plugin {
				continue
			}

			now++

			if !down[other] {
				left++
			}
		}

		if now > 0 && left == 0 {
			return true
		}
	}

	return false
}

// lost returns the types that only those provide that go down.
func (p *plan) lost(down []bool) []string {
	kept := make(map[string]bool)

	for i, n := range p.nodes {
		for _, serviceType := range n.types {
			kept[serviceType] = kept[serviceType] || !down[i]
		}
	}

	var lost []string

	for serviceType, still := range kept {
		if !still {
			lost = append(lost, serviceType)
		}
	}

	slices.Sort(lost)

	return lost
}
