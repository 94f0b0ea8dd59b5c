package depgraph_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/depgraph"
)

// plugin reads a node from text: "id [provides] requires", where both are
// comma-separated, "-" requires nothing, a version or constraint follows
// after @, and a trailing ? makes a requirement optional.
func plugin(tb testing.TB, text string) depgraph.Node {
	tb.Helper()

	fields := strings.Fields(text)
	if len(fields) != 3 {
		tb.Fatalf("node %q", text)
	}

	n := depgraph.Node{RuntimeID: fields[0], SelfID: fields[0]}

	for _, item := range list(strings.Trim(fields[1], "[]")) {
		serviceType, version, found := strings.Cut(item, "@")
		if !found {
			version = "1.0.0"
		}

		n.Provides = append(n.Provides, depgraph.Provision{Type: serviceType, Version: version})
	}

	for _, item := range list(fields[2]) {
		item, optional := strings.CutSuffix(item, "?")
		serviceType, constraint, _ := strings.Cut(item, "@")
		n.Requires = append(n.Requires, depgraph.Requirement{
			Type: serviceType, MinVersion: strings.ReplaceAll(constraint, ";", ","), Required: !optional,
		})
	}

	return n
}

func list(field string) []string {
	if field == "" || field == "-" {
		return nil
	}

	return strings.Split(field, ",")
}

func graph(tb testing.TB, nodes []string) *depgraph.Graph {
	tb.Helper()

	var g depgraph.Graph
	for _, text := range nodes {
		g.Add(plugin(tb, text))
	}

	return &g
}

// startupOrders are graphs with their order, or with what is wrong with them.
var startupOrders = []struct {
	name  string
	nodes []string
	want  string
	err   string
}{
	{name: "empty"},
	{name: "independent plugins keep their order", nodes: []string{"c [] -", "a [] -", "b [] -"}, want: "c a b"},
	{name: "a chain", nodes: []string{"app [] cache", "cache [cache] store", "store [store] -"}, want: "store cache app"},
	{name: "a diamond", nodes: []string{"d [] b,c", "b [b] a", "c [c] a", "a [a] -"}, want: "a b c d"},
	{
		name:  "one of several providers is enough",
		nodes: []string{"a [x] y", "b [y] x", "c [x] -"}, want: "c b a",
	},
	{
		name:  "after all providers where that is possible",
		nodes: []string{"app [] log", "log1 [log] -", "log2 [log] -"}, want: "log1 log2 app",
	},
	{name: "an optional one comes first", nodes: []string{"app [] log?", "log [log] -"}, want: "log app"},
	{name: "an optional one may be missing", nodes: []string{"app [] log?"}, want: "app"},
	{name: "an optional circle is broken", nodes: []string{"a [a] b?", "b [b] a?"}, want: "a b"},
	{name: "half a circle is optional", nodes: []string{"a [a] b", "b [b] a?"}, want: "b a"},
	{
		name:  "who waits for an optional circle comes after it",
		nodes: []string{"x [] y?", "y [y] z?", "z [z] y?"}, want: "y z x",
	},
	{
		name:  "versions compare by number",
		nodes: []string{"app [] db@1.9.0", "db [db@1.10.0] -"}, want: "db app",
	},
	{
		name:  "a pre-release is before its release",
		nodes: []string{"app [] db@1.0.0", "db [db@1.0.0-rc.1] -"},
		err:   "missing dependency: app requires db (1.0.0)",
	},
	{
		name:  "a constraint",
		nodes: []string{"app [] db@>=1.2;<2", "new [db@2.1.0] app?", "db [db@1.4.0] -"}, want: "db app new",
	},
	{
		name:  "a type provided in two versions",
		nodes: []string{"app [] db@^1", "db [db@2.0.0,db@1.1.0] -"}, want: "db app",
	},
	{name: "missing", nodes: []string{"app [] db"}, err: "missing dependency: app requires db"},
	{
		name:  "all that is missing is named",
		nodes: []string{"app [] db,log@2", "log [log] -"},
		err:   "missing dependency: app requires db\nmissing dependency: app requires log (2)",
	},
	{
		name: "a constraint that cannot be read", nodes: []string{"app [] db@>>x", "db [db] -"},
		err: "missing dependency: app requires db (>>x): constraint: improper constraint: \">>x\"; write for example \">=1.2, <2\"",
	},
	{name: "a version that cannot be read", nodes: []string{"app [] db@1", "db [db@one] -"}, err: "missing dependency: app requires db (1)"},
	{name: "a version that cannot be read is any", nodes: []string{"app [] db", "db [db@one] -"}, want: "db app"},
	{name: "a circle", nodes: []string{"a [a] b", "b [b] a"}, err: "dependency cycle: a -> b -> a"},
	{name: "a circle of one", nodes: []string{"a [a] a"}, err: "dependency cycle: a -> a"},
	{
		name:  "only the circle is named",
		nodes: []string{"app [] b", "a [a] c", "b [b] a", "c [c] b", "free [] -"}, err: "dependency cycle: a -> c -> b -> a",
	},
	{
		name:  "a circle behind a tail",
		nodes: []string{"a [a] b,c?", "b [b] c", "c [c] b"}, err: "dependency cycle: b -> c -> b",
	},
	{
		name:  "who else is needed is named first",
		nodes: []string{"a [x] x", "b [x] x"}, err: "dependency cycle: a -> b -> a",
	},
	{name: "another provider saves from waiting for oneself", nodes: []string{"a [x] x", "b [x] -"}, want: "b a"},
}

func TestStartupOrder(t *testing.T) {
	t.Parallel()

	for _, tt := range startupOrders {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			order, err := graph(t, tt.nodes).StartupOrder()
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("error %v, want %s", err, tt.err)
				}

				return
			}

			if err != nil {
				t.Fatal(err)
			}

			if got := strings.Join(order, " "); got != tt.want {
				t.Errorf("order %q, want %q", got, tt.want)
			}
		})
	}
}

func TestStartupOrderErrors(t *testing.T) {
	t.Parallel()

	_, err := graph(t, []string{"a [a] b", "b [b] a"}).StartupOrder()

	var cycle *depgraph.CycleError
	if !errors.Is(err, depgraph.ErrCycle) || errors.Is(err, depgraph.ErrMissing) || !errors.As(err, &cycle) {
		t.Fatalf("error %v is no cycle", err)
	}

	if want := []string{"a", "b", "a"}; !slices.Equal(cycle.Plugins, want) {
		t.Errorf("plugins %v, want %v", cycle.Plugins, want)
	}

	_, err = graph(t, []string{"a [] x", "b [] y@2"}).StartupOrder()

	var missing *depgraph.MissingError
	if !errors.Is(err, depgraph.ErrMissing) || errors.Is(err, depgraph.ErrCycle) || !errors.As(err, &missing) {
		t.Fatalf("error %v is no missing dependency", err)
	}

	if missing.Plugin != "a" || missing.Type != "x" {
		t.Errorf("missing %+v", missing)
	}
}

func TestAddReplacesAndRemove(t *testing.T) {
	t.Parallel()

	g := graph(t, []string{"app [] db", "db [db] -", "log [] -"})
	g.Add(plugin(t, "app [] -"))

	order, err := g.StartupOrder()
	if err != nil || strings.Join(order, " ") != "app db log" {
		t.Fatalf("order %v, %v", order, err)
	}

	if !g.Remove("db") || g.Remove("db") {
		t.Error("a plugin is removed once")
	}

	order, err = g.StartupOrder()
	if err != nil || strings.Join(order, " ") != "app log" {
		t.Errorf("order %v, %v", order, err)
	}
}

func TestGraphSharesNothing(t *testing.T) {
	t.Parallel()

	n := plugin(t, "app [] db")

	var g depgraph.Graph
	g.Add(n)

	n.Requires[0] = depgraph.Requirement{}

	if _, err := g.StartupOrder(); !errors.Is(err, depgraph.ErrMissing) {
		t.Errorf("the caller's slice changed the graph: %v", err)
	}
}

func TestImpact(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name                        string
		nodes                       []string
		target                      string
		plugins, services, optional string
	}{
		{name: "unknown", nodes: []string{"a [a] -"}, target: "b"},
		{name: "nobody depends", nodes: []string{"a [a] -", "b [b] -"}, target: "a", services: "a"},
		{
			name:  "transitive",
			nodes: []string{"ui [ui] app", "app [app] db", "db [db] -", "free [free] -"}, target: "db",
			plugins: "app ui", services: "app db ui",
		},
		{
			name:  "another provider takes over",
			nodes: []string{"app [app] db", "db1 [db] -", "db2 [db] -"}, target: "db1",
		},
		{
			name:  "the other provider is of the wrong version",
			nodes: []string{"app [app] db@2", "db1 [db@1.0.0] -", "db2 [db@2.0.0] -"}, target: "db2",
			plugins: "app", services: "app",
		},
		{
			name:  "the other provider goes down as well",
			nodes: []string{"app [app] db", "db1 [db] disk", "db2 [db] disk", "disk [disk] -"}, target: "disk",
			plugins: "app db1 db2", services: "app db disk",
		},
		{
			name:  "optional",
			nodes: []string{"app [app] log?", "web [] app?", "log [log] -"}, target: "log",
			services: "log", optional: "app",
		},
		{
			name:  "optional behind a loss",
			nodes: []string{"app [app] log", "web [] app?", "log [log] -"}, target: "log",
			plugins: "app", services: "app log", optional: "web",
		},
		{
			name:  "what was missing before is no impact",
			nodes: []string{"app [] gone", "a [a] -"}, target: "a", services: "a",
		},
		{
			name:  "nobody is its own provider",
			nodes: []string{"a [x] x", "b [x] -"}, target: "b", plugins: "a", services: "x",
		},
	}

	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got := graph(t, tt.nodes).Impact(tt.target)
			if got.TargetPlugin != tt.target {
				t.Errorf("target %q", got.TargetPlugin)
			}

			for name, lists := range map[string][2]string{
				"plugins":  {strings.Join(got.AffectedPlugins, " "), tt.plugins},
				"services": {strings.Join(got.AffectedServices, " "), tt.services},
				"optional": {strings.Join(got.OptionalImpact, " "), tt.optional},
			} {
				if lists[0] != lists[1] {
					t.Errorf("%s %q, want %q", name, lists[0], lists[1])
				}
			}
		})
	}
}
