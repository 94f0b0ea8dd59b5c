package depgraph_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/depgraph"
)

// decode makes a small set of plugins from bytes: each plugin takes three, one
// bit for each of four types that it provides, requires and would like to have.
func decode(data []byte) []depgraph.Node {
	const maxPlugins = 7

	var nodes []depgraph.Node

	for ; len(data) >= 3 && len(nodes) < maxPlugins; data = data[3:] {
		n := depgraph.Node{RuntimeID: fmt.Sprintf("p%d", len(nodes))}

		for bit := range 4 {
			serviceType := string(rune('a' + bit))
			if data[0]>>bit&1 == 1 {
				n.Provides = append(n.Provides, depgraph.Provision{Type: serviceType, Version: "1.0.0"})
			}

			if data[1]>>bit&1 == 1 {
				n.Requires = append(n.Requires, depgraph.Requirement{Type: serviceType, Required: true})
			}

			if data[2]>>bit&1 == 1 {
				n.Requires = append(n.Requires, depgraph.Requirement{Type: serviceType})
			}
		}

		nodes = append(nodes, n)
	}

	return nodes
}

func provides(n depgraph.Node, serviceType string) bool {
	return slices.ContainsFunc(n.Provides, func(p depgraph.Provision) bool { return p.Type == serviceType })
}

// satisfied reports whether, with the plugins that up holds, each requirement of
// n, of that kind, is provided by another.
func satisfied(nodes []depgraph.Node, up map[string]bool, n depgraph.Node, r depgraph.Requirement) bool {
	return slices.ContainsFunc(nodes, func(o depgraph.Node) bool {
		return o.RuntimeID != n.RuntimeID && up[o.RuntimeID] && provides(o, r.Type)
	})
}

func startable(nodes []depgraph.Node, up map[string]bool, n depgraph.Node) bool {
	return !slices.ContainsFunc(n.Requires, func(r depgraph.Requirement) bool {
		return r.Required && !satisfied(nodes, up, n, r)
	})
}

// feasible starts whoever can start until nobody can.
func feasible(nodes []depgraph.Node) bool {
	up := make(map[string]bool)

	for range nodes {
		for _, n := range nodes {
			if startable(nodes, up, n) {
				up[n.RuntimeID] = true
			}
		}
	}

	return len(up) == len(nodes)
}

func checkOrder(t *testing.T, nodes []depgraph.Node) {
	t.Helper()

	var g depgraph.Graph
	for _, n := range nodes {
		g.Add(n)
	}

	order, err := g.StartupOrder()
	if (err == nil) != feasible(nodes) {
		t.Fatalf("%+v: order %v, error %v, feasible %v", nodes, order, err, feasible(nodes))
	}

	byID := make(map[string]depgraph.Node)
	for _, n := range nodes {
		byID[n.RuntimeID] = n
	}

	if cycle, ok := errors.AsType[*depgraph.CycleError](err); ok {
		checkCycle(t, byID, cycle.Plugins)
	}

	if err != nil {
		return
	}

	up := make(map[string]bool)

	for _, id := range order {
		if up[id] || !startable(nodes, up, byID[id]) {
			t.Fatalf("%+v: %s cannot start in %v", nodes, id, order)
		}

		up[id] = true
	}

	if len(order) != len(nodes) {
		t.Fatalf("%+v: order %v is not complete", nodes, order)
	}
}

// checkCycle checks that each plugin requires what the next one provides.
func checkCycle(t *testing.T, byID map[string]depgraph.Node, plugins []string) {
	t.Helper()

	if len(plugins) < 2 || plugins[0] != plugins[len(plugins)-1] {
		t.Fatalf("cycle %v is not closed", plugins)
	}

	for i, id := range plugins[1:] {
		if !slices.ContainsFunc(byID[plugins[i]].Requires, func(r depgraph.Requirement) bool {
			return r.Required && provides(byID[id], r.Type)
		}) {
			t.Fatalf("cycle %v: %s does not require %s", plugins, plugins[i], id)
		}
	}
}

// checkImpact takes away each plugin in turn and compares with a plain count.
func checkImpact(t *testing.T, nodes []depgraph.Node) {
	t.Helper()

	var g depgraph.Graph

	all := make(map[string]bool)

	for _, n := range nodes {
		g.Add(n)
		all[n.RuntimeID] = true
	}

	lost := func(up map[string]bool, n depgraph.Node, required bool) bool {
		return slices.ContainsFunc(n.Requires, func(r depgraph.Requirement) bool {
			return r.Required == required && satisfied(nodes, all, n, r) && !satisfied(nodes, up, n, r)
		})
	}

	for _, target := range nodes {
		up := make(map[string]bool)
		for _, n := range nodes {
			up[n.RuntimeID] = n.RuntimeID != target.RuntimeID
		}

		for range nodes {
			for _, n := range nodes {
				up[n.RuntimeID] = up[n.RuntimeID] && !lost(up, n, true)
			}
		}

		checkAnalysis(t, nodes, up, g.Impact(target.RuntimeID), func(n depgraph.Node) bool { return lost(up, n, false) })
	}
}

// checkAnalysis compares an answer with what is up after the removal.
func checkAnalysis(
	t *testing.T, nodes []depgraph.Node, up map[string]bool, got *depgraph.ImpactAnalysis, misses func(depgraph.Node) bool,
) {
	t.Helper()

	for _, n := range nodes {
		id := n.RuntimeID
		affected := !up[id] && id != got.TargetPlugin

		if slices.Contains(got.AffectedPlugins, id) != affected {
			t.Fatalf("%+v: %+v is wrong about %s", nodes, got, id)
		}

		if slices.Contains(got.OptionalImpact, id) != (up[id] && misses(n)) {
			t.Fatalf("%+v: %+v is wrong about an option of %s", nodes, got, id)
		}
	}

	for _, serviceType := range []string{"a", "b", "c", "d"} {
		before := slices.ContainsFunc(nodes, func(n depgraph.Node) bool { return provides(n, serviceType) })
		after := slices.ContainsFunc(nodes, func(n depgraph.Node) bool { return up[n.RuntimeID] && provides(n, serviceType) })

		if slices.Contains(got.AffectedServices, serviceType) != (before && !after) {
			t.Fatalf("%+v: %+v is wrong about service %s", nodes, got, serviceType)
		}
	}
}

func TestRandomGraphsAgainstBruteForce(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(4, 2))
	orders := 0

	const graphs = 5000

	for range graphs {
		data := make([]byte, 3*(1+random.IntN(7)))
		for i := range data {
			// Sparse bits make orders, dense ones circles.
			data[i] = byte(random.Uint32() & random.Uint32() & random.Uint32())
		}

		nodes := decode(data)
		checkOrder(t, nodes)
		checkImpact(t, nodes)

		if feasible(nodes) {
			orders++
		}
	}

	if orders < graphs/10 || orders > graphs*9/10 {
		t.Errorf("%d of %d graphs have an order: the test is one-sided", orders, graphs)
	}
}

func FuzzGraph(f *testing.F) {
	f.Add([]byte{1, 0, 0, 2, 1, 0, 0, 2, 0})
	f.Add([]byte{1, 2, 0, 2, 1, 0})
	f.Add([]byte{1, 0, 2, 2, 0, 1})
	f.Add([]byte{1, 1, 0})

	f.Fuzz(func(t *testing.T, data []byte) {
		nodes := decode(data)
		checkOrder(t, nodes)
		checkImpact(t, nodes)
	})
}

func TestGraphIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()

	g := graph(t, []string{"db [db] -"})
	app := plugin(t, "app [app] db")
	done := make(chan struct{})

	go func() {
		defer close(done)

		for range 500 {
			g.Add(app)
			g.Remove("app")
		}
	}()

	for range 500 {
		if _, err := g.StartupOrder(); err != nil {
			t.Error(err)
		}

		g.Impact("db")
	}

	<-done
}
