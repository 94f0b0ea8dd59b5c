package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// offers is a catalogue without bounds in which anybody may provide anything.
func offers(tb testing.TB, cfg catalog.Config) *catalog.Catalog {
	tb.Helper()

	cfg.MaxRegistrations, cfg.MaxPerRuntime, cfg.MaxPerType = -1, -1, -1
	cfg.MaxWatches, cfg.MaxWatchesPerRuntime = -1, -1
	cfg.AllowMultiple = func(string) bool { return true }

	return catalog.New(cfg)
}

// reg is a registration of a type by a runtime; its id is "runtime/type".
func reg(runtime, serviceType, version string) catalog.Registration {
	return catalog.Registration{
		ID: runtime + "/" + serviceType, RuntimeID: runtime, SelfID: "self", Type: serviceType, Version: version,
	}
}

func register(tb testing.TB, c *catalog.Catalog, regs ...catalog.Registration) {
	tb.Helper()

	for _, reg := range regs {
		if err := c.Register(reg); err != nil {
			tb.Fatalf("register %s: %v", reg.ID, err)
		}
	}
}

func unregister(tb testing.TB, c *catalog.Catalog, id string) {
	tb.Helper()

	if err := c.Unregister(id, ""); err != nil {
		tb.Fatalf("unregister %s: %v", id, err)
	}
}

func setHealth(c *catalog.Catalog, runtime string, health catalog.Health) {
	c.SetHealth(runtime, catalog.HealthReport{Health: health})
}

func constraint(tb testing.TB, text string) catalog.Constraint {
	tb.Helper()

	c, err := catalog.ParseConstraint(text)
	if err != nil {
		tb.Fatal(err)
	}

	return c
}

// selected is the runtime that is selected, or nothing.
func selected(tb testing.TB, c *catalog.Catalog, serviceType, text string) string {
	tb.Helper()

	reg, _, err := c.Select(serviceType, constraint(tb, text))
	if err != nil && !errors.Is(err, catalog.ErrNotFound) {
		tb.Fatal(err)
	}

	return reg.RuntimeID
}

func watch(tb testing.TB, c *catalog.Catalog, req catalog.WatchRequest) *catalog.Watcher {
	tb.Helper()

	w, err := c.Watch(req)
	if err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(w.Close)

	return w
}

// next is the next event, which must be there already.
func next(tb testing.TB, w *catalog.Watcher) catalog.Event {
	tb.Helper()

	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()

	event, err := w.Next(ctx)
	if err != nil {
		tb.Fatalf("next: %v", err)
	}

	return event
}

// silent fails if there is an event; outside of a bubble that takes a moment.
func silent(tb testing.TB, w *catalog.Watcher) {
	tb.Helper()

	ctx, cancel := context.WithTimeout(tb.Context(), time.Millisecond)
	defer cancel()

	if event, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		tb.Errorf("unexpected %+v, %v", event, err)
	}
}

// short writes an event down.
func short(e catalog.Event) string {
	text := fmt.Sprintf("%d %v %s", e.Sequence, e.State, e.Provider.RuntimeID)
	if e.Resync {
		text += fmt.Sprintf(" resync %d", e.Missed)
	}

	return text
}
