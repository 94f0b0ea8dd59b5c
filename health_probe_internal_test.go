package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// ward is a prober's surroundings, in a bubble of their own time.
type ward struct {
	prober  *prober
	began   time.Time
	targets []probeTarget
	asked   map[string][]time.Duration // since the beginning
	told    map[string][]string
	ended   []string
	doubted []string
	answer  func(ctx context.Context, id string) error
	most    int // questions at the same time
	now     int
}

// newWard makes a prober that watches over n plugins.
func newWard(t *testing.T, n int, cfg HealthProbeConfig) *ward {
	t.Helper()
	w := &ward{
		prober: newProber(cfg.withDefaults()), began: time.Now(), asked: map[string][]time.Duration{}, told: map[string][]string{},
		answer: func(context.Context, string) error { return nil },
	}
	store := tokenstore.New(tokenstore.Config{TTL: 1000 * time.Hour})
	for i := range n {
		id, _, err := store.Issue(tokenstore.Request{SelfID: fmt.Sprint("p", i)})
		if err != nil {
			t.Fatal(err)
		}
		w.targets = append(w.targets, probeTarget{id: id, endpoint: "https://plugin"})
	}
	questions := make(chan struct{}, 1)
	locked := func(f func()) { questions <- struct{}{}; f(); <-questions }
	p := w.prober
	p.list = func() (all []probeTarget) {
		locked(func() { all = slices.Clone(w.targets) })
		return all
	}
	p.ask = func(ctx context.Context, id *tokenstore.Identity) (catalog.HealthReport, error) {
		locked(func() {
			w.asked[id.SelfID()] = append(w.asked[id.SelfID()], time.Since(w.began))
			w.now++
			w.most = max(w.most, w.now)
		})
		err := w.answer(ctx, id.SelfID())
		locked(func() { w.now-- })
		return catalog.HealthReport{Health: catalog.HealthHealthy}, err
	}
	p.sign = func(id *tokenstore.Identity) { id.Seen() }
	p.doubt = func(id *tokenstore.Identity) { locked(func() { w.doubted = append(w.doubted, id.SelfID()) }) }
	p.tell = func(id *tokenstore.Identity, _ string, r catalog.HealthReport, _ error) {
		locked(func() { w.told[id.SelfID()] = append(w.told[id.SelfID()], r.Health.String()) })
	}
	p.withdraw = func(id *tokenstore.Identity) {
		locked(func() { w.ended = append(w.ended, id.SelfID()) })
		locked(func() { w.targets = slices.DeleteFunc(w.targets, func(t probeTarget) bool { return t.id == id }) })
	}
	return w
}

// run lets the prober work for a while.
func (w *ward) run(t *testing.T, during time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.prober.run(ctx) }()
	time.Sleep(during) // in a bubble, where that takes no time
	cancel()
	<-done
}

// Each plugin is asked once in every interval. The questions are spread over it,
// the first ones at a random moment, and in another order each time.
func TestProber_SpreadsItsQuestions(t *testing.T) {
	t.Parallel()
	starts, orders := map[time.Duration]bool{}, map[string]bool{}
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			const plugins, rounds = 10, 6
			w := newWard(t, plugins, HealthProbeConfig{Interval: 10 * time.Second})
			w.run(t, (rounds+1)*10*time.Second)
			at := map[time.Duration]string{}
			for name, times := range w.asked {
				if len(times) < rounds || len(times) > rounds+1 {
					t.Fatalf("%s was asked %d times in %d intervals", name, len(times), rounds+1)
				}
				for _, when := range times {
					if other, taken := at[when]; taken {
						t.Errorf("%s and %s are asked at the same moment", name, other)
					}
					at[when] = name
				}
			}
			if len(w.asked) != plugins {
				t.Errorf("%d plugins were asked", len(w.asked))
			}
			moments := slices.Sorted(maps.Keys(at))
			if len(moments) < rounds*plugins {
				t.Fatalf("%d moments", len(moments))
			}
			starts[moments[0]] = true
			for round := range rounds {
				order := ""
				for _, m := range moments[round*plugins : (round+1)*plugins] {
					order += at[m] + " "
				}
				orders[order] = true
			}
			for i := 1; i < len(moments); i++ {
				if gap := moments[i] - moments[i-1]; gap < 900*time.Millisecond || gap > 1100*time.Millisecond {
					t.Errorf("question %d comes %v after the one before it", i, gap)
				}
			}
		})
	}
	if len(starts) < 2 || len(orders) < 20 {
		t.Errorf("%d beginnings of 5 and %d orders of 30 differ", len(starts), len(orders))
	}
}

// A failure is none until there are as many in a row as configured. One answer
// ends it, and what has not changed is not told again.
func TestProber_TellsWhatTheAnswersAmountTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, 1, HealthProbeConfig{Interval: time.Second, FailureThreshold: 3})
		script := []bool{true, false, false, true, false, false, true, false, false, false, false, true, false, false, false}
		w.answer = func(context.Context, string) (err error) {
			if !script[0] {
				err = errors.New("no answer")
			}
			script = script[min(1, len(script)-1):]
			return err
		}
		w.run(t, 16*time.Second)
		if got := w.told["p0"]; !slices.Equal(got, []string{"healthy", "unhealthy", "healthy", "unhealthy"}) {
			t.Errorf("told %q", got)
		}
	})
}

// A question that hangs ends with its timeout, there are never more at a time than
// configured, and the end of the prober waits for those that are under way.
func TestProber_QuestionsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, 20, HealthProbeConfig{Interval: time.Second, Timeout: 2 * time.Second, FailureThreshold: 1, MaxConcurrent: 3})
		w.answer = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		w.run(t, time.Minute)
		if w.most != 3 || w.now != 0 || len(w.asked) != 20 {
			t.Errorf("%d questions at a time, %d are left, %d plugins were asked", w.most, w.now, len(w.asked))
		}
		for name, times := range w.asked {
			if len(times) < 2 || w.told[name][0] != "unhealthy" {
				t.Errorf("%s was asked %d times, told %q", name, len(times), w.told[name])
			}
		}
	})
}

// A plugin that gives no sign of life for its lease is withdrawn, not before. One that the host cannot judge stays.
func TestProber_WithdrawsTheSilent(t *testing.T) {
	t.Parallel()
	silent := func(context.Context, string) error { return errors.New("no answer") }
	stand := func(w *ward) { // the host stands still in its first round
		w.answer = silent
		list, once := w.prober.list, sync.OnceFunc(func() { time.Sleep(2 * time.Minute) })
		w.prober.list = func() []probeTarget { once(); return list() }
	}
	for name, c := range map[string]struct {
		cfg    HealthProbeConfig
		edit   func(w *ward)
		during time.Duration
		want   int
	}{
		"silent, before its lease is over": {HealthProbeConfig{}, func(w *ward) { w.answer = silent }, 59 * time.Second, 0},
		"silent":                           {HealthProbeConfig{}, func(w *ward) { w.answer = silent }, 81 * time.Second, 1},
		"answers":                          {HealthProbeConfig{}, func(*ward) {}, time.Hour, 0},
		"the host stood still":             {HealthProbeConfig{}, stand, 2*time.Minute + 59*time.Second, 0},
		"silent after it stood still":      {HealthProbeConfig{}, stand, 2*time.Minute + 81*time.Second, 1},
		"answered, then silent": {HealthProbeConfig{}, func(w *ward) {
			w.answer = func(ctx context.Context, id string) error {
				if time.Since(w.began) < 5*time.Minute {
					return nil
				}
				return silent(ctx, id)
			}
		}, 7 * time.Minute, 1},
		"cannot be asked, reported once":  {HealthProbeConfig{}, func(w *ward) { w.targets[0].endpoint, w.targets[0].reported = "", w.began }, 81 * time.Second, 1},
		"cannot be asked, reported later": {HealthProbeConfig{}, func(w *ward) { w.targets[0].endpoint, w.targets[0].reported = "", w.began.Add(time.Hour) }, time.Hour, 0},
		"cannot be asked, never reported": {HealthProbeConfig{}, func(w *ward) { w.targets[0].endpoint = "" }, time.Hour, 0},
		"probing is off":                  {HealthProbeConfig{Disabled: true}, func(w *ward) { w.answer = silent }, time.Hour, 0},
		"probing is off, reported once":   {HealthProbeConfig{Disabled: true}, func(w *ward) { w.targets[0].reported = w.began }, 81 * time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Interval, c.cfg.Lease = 10*time.Second, time.Minute
				w := newWard(t, 1, c.cfg)
				c.edit(w)
				w.run(t, c.during)
				if len(w.ended) != c.want {
					t.Errorf("%d were withdrawn, want %d", len(w.ended), c.want)
				}
				if c.cfg.Disabled && len(w.asked) > 0 {
					t.Error("it was asked")
				}
			})
		})
	}
}

// A plugin that is reached elsewhere begins anew: it is told of again, and only after as
// many failures as any other.
func TestProber_BeginsAnewElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, 1, HealthProbeConfig{Interval: 10 * time.Second, FailureThreshold: 2})
		w.answer = func(context.Context, string) error { return errors.New("silent") }
		list := w.prober.list
		w.prober.list = func() []probeTarget {
			all := list()
			all[0].endpoint += fmt.Sprint(time.Since(w.began) > 25*time.Second)
			return all
		}
		w.run(t, time.Minute)
		if got := w.told["p0"]; !slices.Equal(got, []string{"unhealthy", "unhealthy"}) {
			t.Errorf("told %q, want of each place once", got)
		}
	})
}

// Five hundred plugins of a thousand that hang delay the detection of none: everyone is
// asked once an interval, and one that stops answering is unhealthy as soon as it would be
// alone.
func TestAudit_USE44_WhoHangsDelaysNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const plugins, dies = 1000, 2 * time.Minute
		w := newWard(t, plugins, HealthProbeConfig{Lease: time.Hour})
		toldAt := map[string]time.Duration{}
		tell := w.prober.tell
		w.prober.tell = func(id *tokenstore.Identity, endpoint string, r catalog.HealthReport, err error) {
			if r.Health == catalog.HealthUnhealthy {
				toldAt[id.SelfID()] = time.Since(w.began)
			}
			tell(id, endpoint, r, err)
		}
		w.answer = func(ctx context.Context, id string) error {
			var n int
			_, _ = fmt.Sscanf(id, "p%d", &n)
			switch {
			case n < plugins/2:
				<-ctx.Done()
				return ctx.Err()
			case n%10 == 0 && time.Since(w.began) > dies:
				return errors.New("refused")
			}
			return nil
		}
		w.run(t, dies+time.Minute)
		for name, times := range w.asked {
			for i := 1; i < len(times); i++ {
				if gap := times[i] - times[i-1]; gap > 2*defaultProbeInterval {
					t.Fatalf("%s was not asked for %v", name, gap)
				}
			}
		}
		for n := plugins / 2; n < plugins; n += 10 {
			if at := toldAt[fmt.Sprint("p", n)]; at < dies || at > dies+(defaultProbeFailures+1)*defaultProbeInterval {
				t.Errorf("p%d died at %v and was told at %v", n, dies, at)
			}
		}
		if len(toldAt) != plugins/2+plugins/20 || len(w.asked) != plugins {
			t.Errorf("%d were told, %d were asked", len(toldAt), len(w.asked))
		}
	})
}

// Who goes on saying how it is and answers calls itself is not asked; any other is.
func TestAudit_USE44_AskedWhereNothingElseShowsLife(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ reports, once, serves, another, asked bool }{
		"reports and serves": {reports: true, serves: true}, "serves": {serves: true, asked: true}, "reports": {reports: true, asked: true},
		"neither": {asked: true}, "reported once and serves": {once: true, serves: true, asked: true},
		"another serves in its place": {reports: true, serves: true, another: true, asked: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t, 1, HealthProbeConfig{})
				id, list := w.targets[0].id, w.prober.list
				if missed := newLikeness(); c.another {
					missed.miss()
					id.SetAttributes(&declaration{adopted: missed})
				}
				w.prober.list = func() []probeTarget {
					if c.serves {
						id.Served()
					}
					all := list()
					all[0].reported = map[bool]time.Time{c.reports: time.Now(), c.once: w.began}[true]
					return all
				}
				w.run(t, 5*time.Minute)
				if n := len(w.asked["p0"]); n > 0 != c.asked {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}

// Who is asked at once and does not answer is doubted, at the first question. What one answers that was asked before is no sign.
func TestAudit_USE43_AskedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var early atomic.Bool
		w, signs := newWard(t, 3, HealthProbeConfig{Interval: time.Hour, Lease: 9 * time.Hour}), 0
		w.prober.sign = func(*tokenstore.Identity) { signs++ }
		w.answer = func(_ context.Context, id string) error {
			if id == "p2" && early.CompareAndSwap(false, true) {
				w.prober.hurry(w.targets[2].id) // its connection ends by then
				time.Sleep(time.Millisecond)
			} else if id != "p1" {
				return errors.New("refused")
			}
			return nil
		}
		for _, target := range w.targets {
			w.prober.hurry(target.id)
		}
		w.run(t, time.Second)
		if slices.Sort(w.doubted); !slices.Equal(w.doubted, []string{"p0", "p2"}) || signs != 1 {
			t.Errorf("doubted %q, %d signs of life", w.doubted, signs)
		}
	})
}

// Who reports in every interval and was well when it was asked is asked now and then, and as
// before once it stops, answers otherwise, or not at all.
func TestProber_ReportsSpareQuestions(t *testing.T) {
	t.Parallel()
	const rounds, sick = 60, 30
	for name, c := range map[string]struct {
		silent, ill bool // from the thirtieth round on
		least, most int  // questions
	}{
		"reports and is well":      {false, false, rounds / 8, rounds/4 + 2},
		"stops reporting":          {true, false, rounds - sick, rounds - sick + sick/4 + 4},
		"reports and answers none": {false, true, rounds - sick - 8, rounds - sick + sick/4 + 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t, 1, HealthProbeConfig{})
				list := w.prober.list
				w.prober.list = func() []probeTarget {
					all := list()
					if since := time.Since(w.began); !c.silent || since < sick*defaultProbeInterval {
						all[0].reported = time.Now().Add(-defaultProbeInterval)
					} else {
						all[0].reported = w.began.Add(sick * defaultProbeInterval)
					}
					return all
				}
				w.answer = func(context.Context, string) error {
					if c.ill && time.Since(w.began) > sick*defaultProbeInterval {
						return errors.New("refused")
					}
					return nil
				}
				w.run(t, rounds*defaultProbeInterval)
				if asked := len(w.asked["p0"]); asked < c.least || asked > c.most {
					t.Errorf("asked %d times in %d rounds, want %d to %d", asked, rounds, c.least, c.most)
				}
				if told := w.told["p0"]; c.ill != slices.Contains(told, catalog.HealthUnhealthy.String()) {
					t.Errorf("told %v", told)
				}
			})
		})
	}
}

// One that answers that it is not quite well is asked again in the next round, whatever it reports.
func TestProber_AsksWhoIsDegraded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rounds = 20
		w := newWard(t, 1, HealthProbeConfig{})
		list, ask := w.prober.list, w.prober.ask
		w.prober.list = func() []probeTarget {
			all := list()
			all[0].reported = time.Now()
			return all
		}
		w.prober.ask = func(ctx context.Context, id *tokenstore.Identity) (catalog.HealthReport, error) {
			_, err := ask(ctx, id)
			return catalog.HealthReport{Health: catalog.HealthDegraded}, err
		}
		w.run(t, rounds*defaultProbeInterval)
		if asked := len(w.asked["p0"]); asked < rounds-1 {
			t.Errorf("asked %d times in %d rounds", asked, rounds)
		}
	})
}

// One that did not answer when it was asked out of its turn rests no longer.
func TestProber_ADoubtEndsTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const well = 10 * defaultProbeInterval
		w := newWard(t, 1, HealthProbeConfig{})
		list := w.prober.list
		w.prober.list = func() []probeTarget {
			all := list()
			all[0].reported = time.Now()
			return all
		}
		w.answer = func(context.Context, string) error {
			if time.Since(w.began) < well {
				return nil
			}
			return errors.New("refused")
		}
		hurried := make(chan struct{})
		go func() {
			defer close(hurried)
			time.Sleep(well - time.Second) // in the bubble
			w.prober.hurry(w.targets[0].id)
			time.Sleep(time.Second)
			w.prober.hurry(w.targets[0].id)
		}()
		w.run(t, well+defaultProbeFailures*defaultProbeInterval)
		<-hurried
		if !slices.Contains(w.told["p0"], catalog.HealthUnhealthy.String()) {
			t.Errorf("asked at %v, told %v", w.asked["p0"], w.told["p0"])
		}
	})
}

// More plugins than may report in an interval are told to report less often, and asked as much
// less often; one that goes on in silence is asked as soon as it is late.
func TestProber_PacesReports(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		plugins    int
		cfg        HealthProbeConfig
		want, pace time.Duration // stated, and kept to by the plugins
	}{
		"few":         {10, HealthProbeConfig{ReportsPerSecond: 1}, 0, 10 * time.Second},
		"many":        {60, HealthProbeConfig{ReportsPerSecond: 1}, time.Minute, time.Minute},
		"very many":   {200, HealthProbeConfig{ReportsPerSecond: 1}, mostPace, mostPace},
		"short lease": {60, HealthProbeConfig{ReportsPerSecond: 1, Lease: 2 * time.Minute}, 30 * time.Second, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const during = 30 * time.Minute
				w := newWard(t, tt.plugins, tt.cfg)
				var stated time.Duration = -1
				w.prober.slow = func(pace time.Duration) { stated = pace }
				list, silent := w.prober.list, w.targets[0].id
				w.prober.list = func() []probeTarget {
					all := list()
					for i := range all {
						all[i].reported = time.Now().Truncate(tt.pace)
					}
					all[0].reported = w.began
					return all
				}
				w.run(t, during)
				questions := len(slices.Concat(slices.Collect(maps.Values(w.asked))...))
				if most := tt.plugins * (int(during/tt.pace)/leastRest + 3); questions > most || stated != tt.want {
					t.Errorf("reports every %v, want %v; %d questions, want at most %d", stated, tt.want, questions, most)
				}
				least := int((during - 3*tt.pace) / defaultProbeInterval / 2)
				if n := len(w.asked[silent.SelfID()]); n < least {
					t.Errorf("the silent one was asked %d times, want %d or more", n, least)
				}
			})
		})
	}
}
