package catalog_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

const many = 100_000

// layouts are the ways in which registrations can be spread.
var layouts = []struct {
	name     string
	register func(i int) catalog.Registration
}{
	{"one type", func(i int) catalog.Registration {
		return catalog.Registration{
			ID: fmt.Sprint("id", i), RuntimeID: fmt.Sprint("r", i), SelfID: "self", Type: "log", Version: fmt.Sprintf("1.%d.0", i%8),
		}
	}},
	{"a type each", func(i int) catalog.Registration {
		return catalog.Registration{
			ID: fmt.Sprint("id", i), RuntimeID: fmt.Sprint("r", i), SelfID: "self", Type: fmt.Sprint("log", i), Version: "1.0.0",
		}
	}},
	{"one runtime", func(i int) catalog.Registration {
		return catalog.Registration{
			ID: fmt.Sprint("id", i), RuntimeID: "r", SelfID: "self", Type: fmt.Sprint("log", i), Version: "1.0.0",
		}
	}},
	{"a version each", func(i int) catalog.Registration {
		return catalog.Registration{
			ID: fmt.Sprint("id", i), RuntimeID: fmt.Sprint("r", i), SelfID: "self", Type: "log", Version: fmt.Sprintf("1.%d.0", i),
		}
	}},
}

func fill(tb testing.TB, n int, layout func(int) catalog.Registration) *catalog.Catalog {
	tb.Helper()

	c := offers(tb, catalog.Config{})
	for i := range n {
		register(tb, c, layout(i))
	}

	return c
}

func TestSelectAllocatesNothing(t *testing.T) {
	const some = 1000 // what is chosen from is as large as it matters

	c := fill(t, some, layouts[0].register)

	for strategy := range catalog.StrategyWeighted + 1 {
		c.SetStrategy("log", strategy)

		for _, text := range []string{"", "1.0.0", ">=1, <2"} {
			allowed := constraint(t, text)

			if n := testing.AllocsPerRun(50, func() {
				if _, _, err := c.Select("log", allowed); err != nil || !c.Has("log", allowed) {
					t.Error(err)
				}
			}); n != 0 {
				t.Errorf("strategy %d, %q: %v allocations", strategy, text, n)
			}
		}
	}
}

func BenchmarkSelect(b *testing.B) {
	strategies := []string{"first", "round robin", "random", "weighted"}

	for _, layout := range layouts {
		c := fill(b, many, layout.register)
		name := layout.register(many / 2).Type

		for strategy := range catalog.StrategyWeighted + 1 {
			c.SetStrategy(name, strategy)

			for _, text := range []string{"", "1.0.0", ">=1, <2"} {
				if layout.name == "a version each" && text != "" {
					continue // its cost grows with the versions, see pickRelease
				}

				allowed := constraint(b, text)

				b.Run(fmt.Sprintf("%s/%s/%q", layout.name, strategies[strategy], text), func(b *testing.B) {
					b.ReportAllocs()

					for b.Loop() {
						if _, _, err := c.Select(name, allowed); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}

func BenchmarkSelectParallel(b *testing.B) {
	c := fill(b, many, layouts[0].register)
	c.SetStrategy("log", catalog.StrategyWeighted)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _, _ = c.Select("log", catalog.Constraint{})
		}
	})
}

func BenchmarkRegisterUnregister(b *testing.B) {
	for _, layout := range layouts {
		for _, n := range []int{100, many} {
			c := fill(b, n, layout.register)
			r := layout.register(n)

			b.Run(fmt.Sprintf("%s/%d", layout.name, n), func(b *testing.B) {
				b.ReportAllocs()

				for b.Loop() {
					_ = c.Register(r)
					_ = c.Unregister(r.ID, r.RuntimeID)
				}
			})
		}
	}
}

func BenchmarkSetHealth(b *testing.B) {
	for _, n := range []int{100, many} {
		c := fill(b, n, layouts[0].register)

		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()

			i := 0
			for b.Loop() {
				i++
				setHealth(c, "r50", catalog.Health(1+i%3))
			}
		})
	}
}

func BenchmarkReport(b *testing.B) {
	c := fill(b, many, layouts[0].register)
	c.SetStrategy("log", catalog.StrategyWeighted)
	b.ReportAllocs()

	for b.Loop() {
		c.Report("log", "r7", true, time.Millisecond)
	}
}

// heap is what lives, in bytes.
func heap() float64 {
	var m runtime.MemStats

	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)

	return float64(m.HeapAlloc)
}

func BenchmarkMemoryPerRegistration(b *testing.B) {
	for _, layout := range layouts {
		b.Run(layout.name, func(b *testing.B) {
			var per float64

			for b.Loop() {
				// The strings are the caller's.
				regs := make([]catalog.Registration, many)
				for i := range regs {
					regs[i] = layout.register(i)
				}

				before := heap()
				c := fill(b, many, func(i int) catalog.Registration { return regs[i] })
				per = (heap() - before) / many

				runtime.KeepAlive(c)
				runtime.KeepAlive(regs)
			}

			b.ReportMetric(per, "B/registration")
		})
	}
}

func BenchmarkMemoryPerIdleWatch(b *testing.B) {
	for name, serviceType := range map[string]func(int) string{
		"one type":    func(int) string { return "log" },
		"a type each": func(i int) string { return fmt.Sprint("log", i) },
	} {
		b.Run(name, func(b *testing.B) {
			var per float64

			for b.Loop() {
				c := offers(b, catalog.Config{})
				before := heap()

				for i := range many {
					if _, err := c.Watch(catalog.WatchRequest{Type: serviceType(i)}); err != nil {
						b.Fatal(err)
					}
				}

				per = (heap() - before) / many

				runtime.KeepAlive(c)
			}

			b.ReportMetric(per, "B/watch")
		})
	}
}

// BenchmarkFanOut measures from a change until each of 10,000 watchers of its
// type has its event, while 10,000 of other types sleep.
func BenchmarkFanOut(b *testing.B) {
	const watchers = 10_000

	c := offers(b, catalog.Config{})
	register(b, c, reg("a", "log", "1.0.0"))

	ctx, stop := context.WithCancel(b.Context())

	var (
		all, told sync.WaitGroup
		others    atomic.Int64
		before    = heap()
	)

	follow := func(serviceType string, do func()) {
		w := watch(b, c, catalog.WatchRequest{Type: serviceType})
		if _, err := w.Next(ctx); err != nil {
			b.Fatal(err)
		}

		all.Go(func() {
			for {
				if _, err := w.Next(ctx); err != nil {
					return
				}

				do()
			}
		})
	}

	for i := range watchers {
		follow("log", told.Done)
		follow(fmt.Sprint("other", i%100), func() { others.Add(1) })
	}

	each := (heap() - before) / (2 * watchers)

	b.ReportAllocs()

	i := 0
	for b.Loop() {
		i++

		told.Add(watchers)
		setHealth(c, "a", catalog.Health(1+i%3))
		told.Wait()
	}

	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/watchers, "ns/watcher")
	b.ReportMetric(each, "B/watcher")
	stop()
	all.Wait()

	if others.Load() != 0 {
		b.Errorf("%d watchers of other types woke", others.Load())
	}
}
