package catalog_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

func TestRegisterRefusals(t *testing.T) {
	t.Parallel()

	base := []catalog.Registration{
		{ID: "1", RuntimeID: "a1", SelfID: "a", Type: "log"},
		{ID: "2", RuntimeID: "a1", SelfID: "a", Type: "mail"},
		{ID: "3", RuntimeID: "b1", SelfID: "b", Type: "open"},
	}
	cfg := catalog.Config{
		MaxRegistrations: 5, MaxPerRuntime: 2, MaxPerType: 2,
		AllowMultiple: func(serviceType string) bool { return serviceType == "open" },
	}

	tests := []struct {
		name string
		then []catalog.Registration
		want error
	}{
		{name: "no id", then: []catalog.Registration{{RuntimeID: "c1", SelfID: "c", Type: "x"}}, want: catalog.ErrInvalid},
		{name: "no type", then: []catalog.Registration{{ID: "4", RuntimeID: "c1", SelfID: "c"}}, want: catalog.ErrInvalid},
		{name: "another type", then: []catalog.Registration{{ID: "4", RuntimeID: "c1", SelfID: "c", Type: "x"}}},
		{name: "id in use", then: []catalog.Registration{{ID: "1", RuntimeID: "c1", SelfID: "c", Type: "x"}}, want: catalog.ErrDuplicate},
		{name: "own id for another type", then: []catalog.Registration{{ID: "3", RuntimeID: "b1", SelfID: "b", Type: "x"}}, want: catalog.ErrDuplicate},
		{name: "own id again", then: []catalog.Registration{{ID: "1", RuntimeID: "a1", SelfID: "a", Type: "log"}}},
		{name: "somebody else's type", then: []catalog.Registration{{ID: "4", RuntimeID: "c1", SelfID: "c", Type: "log"}}, want: catalog.ErrConflict},
		{name: "another instance of the owner", then: []catalog.Registration{{ID: "4", RuntimeID: "a2", SelfID: "a", Type: "log"}}},
		{name: "an open type", then: []catalog.Registration{{ID: "4", RuntimeID: "c1", SelfID: "c", Type: "open"}}},
		{
			name: "too many of the runtime",
			then: []catalog.Registration{{ID: "4", RuntimeID: "a1", SelfID: "a", Type: "x"}}, want: catalog.ErrLimit,
		},
		{
			name: "a replacement counts nothing",
			then: []catalog.Registration{{ID: "4", RuntimeID: "a1", SelfID: "a", Type: "log", Version: "2.0.0"}},
		},
		{
			name: "too many of the type",
			then: []catalog.Registration{
				{ID: "4", RuntimeID: "c1", SelfID: "c", Type: "open"}, {ID: "5", RuntimeID: "d1", SelfID: "d", Type: "open"},
			},
			want: catalog.ErrLimit,
		},
		{
			name: "too many",
			then: []catalog.Registration{
				{ID: "4", RuntimeID: "c1", SelfID: "c", Type: "x"},
				{ID: "5", RuntimeID: "c1", SelfID: "c", Type: "y"},
				{ID: "6", RuntimeID: "d1", SelfID: "d", Type: "z"},
			},
			want: catalog.ErrLimit,
		},
	}

	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c := catalog.New(cfg)
			register(t, c, base...)

			last := len(tt.then) - 1
			register(t, c, tt.then[:last]...)

			before := c.Stats()

			err := c.Register(tt.then[last])
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}

			if err != nil && c.Stats() != before {
				t.Errorf("a refusal left %+v, before %+v", c.Stats(), before)
			}
		})
	}
}

func TestOwnershipEndsWithTheLastRegistration(t *testing.T) {
	t.Parallel()

	c := catalog.New(catalog.Config{})
	first := catalog.Registration{ID: "1", RuntimeID: "a1", SelfID: "a", Type: "log"}
	second := catalog.Registration{ID: "2", RuntimeID: "a2", SelfID: "a", Type: "log"}
	other := catalog.Registration{ID: "3", RuntimeID: "b1", SelfID: "b", Type: "log"}

	register(t, c, first, second)
	unregister(t, c, "1")

	if err := c.Register(other); !errors.Is(err, catalog.ErrConflict) {
		t.Errorf("with an instance of the owner left: %v", err)
	}

	c.RemoveRuntime("a2")
	register(t, c, other)

	if err := c.Register(first); !errors.Is(err, catalog.ErrConflict) {
		t.Errorf("the former owner: %v", err)
	}
}

func TestOwnershipFallsToTheEarliestThatIsLeft(t *testing.T) {
	t.Parallel()

	open := true
	c := catalog.New(catalog.Config{AllowMultiple: func(string) bool { return open }})

	for i, self := range []string{"a", "b", "c", "b", "a"} {
		register(t, c, catalog.Registration{ID: fmt.Sprint(i), RuntimeID: fmt.Sprint(i), SelfID: self, Type: "log"})
	}

	open = false

	more := func(self string) error {
		err := c.Register(catalog.Registration{ID: "x", RuntimeID: "x", SelfID: self, Type: "log"})
		if err == nil {
			unregister(t, c, "x")
		}

		return err
	}

	for _, step := range []struct{ gone, owner string }{{"1", "a"}, {"0", "a"}, {"4", "c"}, {"2", "b"}} {
		unregister(t, c, step.gone)

		for _, self := range []string{"a", "b", "c"} {
			if err := more(self); (err == nil) != (self == step.owner) {
				t.Errorf("after %s went, %s registers: %v", step.gone, self, err)
			}
		}
	}
}

func TestReplacement(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	w := watch(t, c, catalog.WatchRequest{Type: "log"})
	next(t, w)
	register(t, c, reg("a", "log", "1.0.0"), reg("b", "log", "1.0.0"))
	next(t, w)
	next(t, w)

	again := reg("a", "log", "1.0.0")
	again.ID, again.Path = "new", "/new"
	register(t, c, again)

	if _, ok := c.Get("a/log"); ok {
		t.Error("the old id is still known")
	}

	if got := next(t, w); got.Provider.Path != "/new" || got.Sequence != 3 {
		t.Errorf("the same version keeps its place and notifies: %+v", got)
	}

	again.Version = "1.1.0"
	register(t, c, again)

	if got := next(t, w); got.Provider.RuntimeID != "b" || got.Sequence != 4 {
		t.Errorf("another version goes behind the rest: %+v", got)
	}

	if got := c.ByType("log"); len(got) != 2 || got[1].Version != "1.1.0" || c.Stats().Registrations != 2 {
		t.Errorf("registrations %+v", got)
	}

	if selected(t, c, "log", "1.1") != "a" || selected(t, c, "log", "=1.0.0") != "b" {
		t.Error("versions are not followed")
	}
}

func TestAudit_REG8_REGTOKEN4_ForeignUnregister(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	register(t, c, reg("a", "log", "1.0.0"))

	foreign, unknown := c.Unregister("a/log", "b"), c.Unregister("nothing", "b")
	if !errors.Is(foreign, catalog.ErrNotFound) || !errors.Is(unknown, catalog.ErrNotFound) || foreign.Error() != unknown.Error() {
		t.Errorf("foreign %v, unknown %v", foreign, unknown)
	}

	if _, ok := c.Get("a/log"); !ok {
		t.Error("a stranger unregistered it")
	}

	if err := c.Unregister("a/log", "a"); err != nil {
		t.Error(err)
	}

	if err := c.Unregister("a/log", "a"); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
}

func TestAudit_REGRACE1_NothingAliasesTheCatalogue(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	r := reg("a", "log", "1.0.0")
	r.Metadata = map[string]string{"k": "v"}
	register(t, c, r)
	r.Metadata["k"] = "changed by the caller"

	unavailable := []string{"db"}
	c.SetHealth("a", catalog.HealthReport{Health: catalog.HealthHealthy, Unavailable: unavailable})
	unavailable[0] = "changed by the caller"

	check := func(what string) {
		t.Helper()

		if got, _ := c.Get("a/log"); got.Metadata["k"] != "v" {
			t.Errorf("%s: metadata %v", what, got.Metadata)
		}

		if got, _ := c.Health("a"); got.Unavailable[0] != "db" {
			t.Errorf("%s: unavailable %v", what, got.Unavailable)
		}
	}
	check("handed in")

	byID, _ := c.Get("a/log")
	provider, _ := c.Provider("log", "a")
	health, _ := c.Health("a")
	health.Unavailable[0] = "changed"

	for _, got := range slices.Concat([]catalog.Registration{byID, provider}, c.ByRuntime("a"), c.ByType("log")) {
		got.Metadata["k"] = "changed"
	}

	c.RemoveWhere(func(got catalog.Registration) bool {
		got.Metadata["k"] = "changed"

		return false
	})
	check("handed out")
}

func TestRemoveRuntimeLeavesNothing(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	register(t, c, reg("a", "log", "1.0.0"), reg("a", "mail", "1.0.0"), reg("b", "log", "1.0.0"))
	setHealth(c, "a", catalog.HealthDegraded)
	c.SetEndpoint("a", "https://127.0.0.1:1")

	own := watch(t, c, catalog.WatchRequest{Type: "other", RuntimeID: "a"})
	next(t, own)

	if got := c.RemoveRuntime("a"); got != 2 {
		t.Errorf("removed %d", got)
	}

	if _, err := own.Next(t.Context()); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("its watch: %v", err)
	}

	if _, ok := c.Health("a"); ok {
		t.Error("its health is left")
	}

	if endpoint, ok := c.Endpoint("a"); ok || endpoint != "" {
		t.Error("its endpoint is left")
	}

	if got := len(c.ByType("log")) + len(c.ByType("mail")) + len(c.ByRuntime("a")); got != 1 {
		t.Errorf("%d registrations are left", got)
	}

	if got, want := c.Stats(), (catalog.Stats{Registrations: 1, Types: 1, Remembered: 1, Runtimes: 1}); got != want {
		t.Errorf("left %+v, want %+v", got, want)
	}

	if c.RemoveRuntime("a") != 0 || c.RemoveRuntime("unknown") != 0 {
		t.Error("a runtime is removed twice")
	}
}

func TestRemoveWhereSparesWhatIsReplacedMeanwhile(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	register(t, c, reg("a", "log", "1.0.0"), reg("b", "log", "1.0.0"))

	removed := c.RemoveWhere(func(r catalog.Registration) bool {
		// No lock is held: the callback may use the catalogue.
		if r.RuntimeID == "a" {
			register(t, c, reg("a", "log", "1.0.0"))
		}

		return true
	})
	if removed != 1 || len(c.ByRuntime("a")) != 1 || len(c.ByRuntime("b")) != 0 {
		t.Errorf("removed %d, left %v", removed, c.ByType("log"))
	}
}

func TestRegisteredAtAndReportTime(t *testing.T) {
	t.Parallel()

	now := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	c := offers(t, catalog.Config{Now: func() time.Time { return now }})
	register(t, c, reg("a", "log", "1.0.0"))
	setHealth(c, "a", catalog.HealthHealthy)

	r, _ := c.Get("a/log")
	h, _ := c.Health("a")

	if !r.RegisteredAt.Equal(now) || !h.At.Equal(now) {
		t.Errorf("registered %v, reported %v", r.RegisteredAt, h.At)
	}
}

func TestConfigureHoldsNewOnesToTheBounds(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	register(t, c, reg("a", "log", "1.0.0"), reg("a", "mail", "1.0.0"))
	c.Configure(catalog.Config{MaxPerRuntime: 1})

	if err := c.Register(reg("a", "x", "1.0.0")); !errors.Is(err, catalog.ErrLimit) {
		t.Errorf("over the new bound: %v", err)
	}

	if c.Stats().Registrations != 2 {
		t.Error("configuring removed something")
	}
}
