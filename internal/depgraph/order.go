package depgraph

import (
	"errors"
	"slices"
)

// StartupOrder returns the runtime ids in an order in which the plugins can be
// started one after the other: each after one that satisfies each of its
// requirements and, as far as there is a way, after all that do, the optional
// ones included. Among equals it is the order in which they were added. Fails with
// [ErrMissing], naming each requirement that nobody satisfies, or with
// [ErrCycle].
func (g *Graph) StartupOrder() ([]string, error) {
	p := newPlan(g.snapshot())
	if err := p.missing(); err != nil {
		return nil, err
	}

	if err := p.start(p.all()); err != nil {
		return nil, err
	}

	return p.order, nil
}

// plan is a startup order while it is made. Plugins are indexes of nodes.
type plan struct {
	nodes []*node
	// providers are, for each plugin and each of its requirements, who satisfies it.
	providers [][][]int
	started   []bool
	order     []string
}

func newPlan(nodes []*node) *plan {
	offers := make(map[string][]int)

	for i, n := range nodes {
		for _, serviceType := range n.types {
			offers[serviceType] = append(offers[serviceType], i)
		}
	}

	p := &plan{nodes: nodes, providers: make([][][]int, len(nodes)), started: make([]bool, len(nodes))}

	for i, n := range nodes {
		for _, r := range n.requires {
			var able []int

			for _, o := range offers[r.serviceType] {
				if nodes[o].satisfies(r) {
					able = append(able, o)
				}
			}

			p.providers[i] = append(p.providers[i], able)
		}
	}

	return p
}

func (p *plan) all() []int {
	all := make([]int, len(p.nodes))
	for i := range all {
		all[i] = i
	}

	return all
}

// missing returns an error for each requirement that nobody satisfies. One that a
// plugin satisfies itself is a cycle of one.
func (p *plan) missing() error {
	var errs []error

	for i, n := range p.nodes {
		for j, r := range n.requires {
			if r.required && len(p.providers[i][j]) == 0 {
				errs = append(errs, &MissingError{Plugin: n.id, Type: r.serviceType, MinVersion: r.text, Cause: r.err})
			}
		}
	}

	if len(errs) == 1 {
		return errs[0]
	}

	return errors.Join(errs...)
}

// start starts a set of plugins. Those that do not wait for each other, be it
// optionally, form groups that can be started one after the other; within a
// group one that can start breaks the circle, and the rest is a smaller set.
func (p *plan) start(set []int) error {
	for _, group := range p.groups(set) {
		next := slices.IndexFunc(group, p.ready)
		if next < 0 {
			return &CycleError{Plugins: p.cycle(group)}
		}

		plugin := group[next]
		p.started[plugin] = true
		p.order = append(p.order, p.nodes[plugin].id)

		if rest := slices.Delete(group, next, next+1); len(rest) > 0 {
			if err := p.start(rest); err != nil {
				return err
			}
		}
	}

	return nil
}

// ready reports whether somebody satisfies each requirement of a plugin.
func (p *plan) ready(plugin int) bool {
	for j, r := range p.nodes[plugin].requires {
		if r.required && !slices.ContainsFunc(p.providers[plugin][j], p.isStarted) {
			return false
		}
	}

	return true
}

func (p *plan) isStarted(plugin int) bool { return p.started[plugin] }

// cycle follows what the plugins of a group wait for until one comes up again.
func (p *plan) cycle(group []int) []string {
	var path []int

	at := group[0]
	for !slices.Contains(path, at) {
		path = append(path, at)
		at = p.blocker(at)
	}

	path = append(path[slices.Index(path, at):], at)

	names := make([]string, 0, len(path))
	for _, plugin := range path {
		names = append(names, p.nodes[plugin].id)
	}

	return names
}

// blocker returns whom a plugin that is not ready waits for: itself only if there
// is nobody else.
func (p *plan) blocker(plugin int) int {
	for j, r := range p.nodes[plugin].requires {
		if !r.required || slices.ContainsFunc(p.providers[plugin][j], p.isStarted) {
			continue
		}

		for _, other := range p.providers[plugin][j] {
			if other != plugin {
				return other
			}
		}

		break
	}

	return plugin
}

// groups returns the strongly connected components of a set under "would start
// after", those that wait for nobody first (Tarjan, 1972).
func (p *plan) groups(set []int) [][]int {
	t := tarjan{plan: p, number: make(map[int]int, len(set)), low: make(map[int]int, len(set)), open: make(map[int]bool, len(set))}
	for _, plugin := range set {
		t.number[plugin] = 0
	}

	for _, plugin := range set {
		if t.number[plugin] == 0 {
			t.visit(plugin)
		}
	}

	return t.groups
}

type tarjan struct {
	plan   *plan
	last   int
	number map[int]int // of the plugins of the set; 0 before the visit
	low    map[int]int
	open   map[int]bool
	stack  []int
	groups [][]int
}

func (t *tarjan) visit(plugin int) {
	t.last++
	t.number[plugin], t.low[plugin] = t.last, t.last
	t.open[plugin] = true
	t.stack = append(t.stack, plugin)

	for _, providers := range t.plan.providers[plugin] {
		for _, next := range providers {
			number, inSet := t.number[next]

			switch {
			case !inSet:
			case number == 0:
				t.visit(next)
				t.low[plugin] = min(t.low[plugin], t.low[next])
			case t.open[next]:
				t.low[plugin] = min(t.low[plugin], number)
			}
		}
	}

	if t.low[plugin] != t.number[plugin] {
		return
	}

	from := slices.Index(t.stack, plugin)
	group := slices.Sorted(slices.Values(t.stack[from:]))
	t.stack = t.stack[:from]

	for _, member := range group {
		t.open[member] = false
	}

	t.groups = append(t.groups, group)
}
