package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"github.com/masegraye/connect-plugin-go/bench/attack/kinds"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

// What an attacker that is not cut off may cost the host; docs/operator.md states the same.
const (
	mostMemory = 96 << 20  // bytes above what the host had
	mostByRule = 128 << 20 // and with the default limits, not those of a small machine
	mostLive   = 112 << 20 // of them, live objects and stacks, with the default limits
	mostCores  = 0.5       // of the host's, where the attacker is not told to come back later
	tolerable  = 1.2       // times the 99th percentile of the control

	middle  = 0.5
	draws   = 400   // of turns, for an interval
	outside = 0.025 // of what they give, on either side of it
)

var errOpen = errors.New("attackers were neither cut off nor bounded, or honest calls failed")

// probed is what the honest callers noticed.
type probed struct {
	times  stage.Times
	failed int
	last   error
}

// row is one attack.
type row struct {
	kind    kinds.Kind
	most    int64 // bytes that the host may have more
	lasts   time.Duration
	outcome kinds.Outcome

	host      time.Duration // of processors, that the host used
	memory    int64         // the most that the host had more than before
	used      time.Duration // of processors, that everybody used who took part
	elsewhere time.Duration // the same in the control

	before        int64 // what the host had
	quiet         probed
	loud, control turns
}

// turns are what the honest callers noticed, turn by turn.
type turns []probed

// all is what they noticed in all turns.
func (t turns) all() (p probed) {
	for _, one := range t {
		p.join(one)
	}
	return p
}

// apart are the turns with an even number and those with an odd one.
func (t turns) apart() (halves [2]probed) {
	for i, one := range t {
		halves[i%len(halves)].join(one)
	}
	return halves
}

// attacked adds a turn of the attack.
func (r *row) attacked(p played, memory int64, lasts time.Duration) {
	r.loud = append(r.loud, p.probed)
	r.lasts += lasts
	r.host += p.host
	r.used += p.used
	r.memory = max(r.memory, memory)
	r.outcome = after(r.outcome, p.outcome)
}

// after adds what a later attack of the same kind saw.
func after(o, later kinds.Outcome) kinds.Outcome {
	later.Sent += o.Sent
	later.Refused += o.Refused
	later.Told = later.Told || o.Told
	if o.CutAfter > 0 {
		later.CutAfter, later.Reason = o.CutAfter, o.Reason
	}
	return later
}

// join adds another round of the same attack.
func (r *row) join(o row) {
	r.kind, r.most = o.kind, o.most
	r.lasts += o.lasts
	r.host += o.host
	r.used += o.used
	r.elsewhere += o.elsewhere
	r.memory = max(r.memory, o.memory)
	r.outcome = after(r.outcome, o.outcome)
	r.quiet.join(o.quiet)
	r.loud = append(r.loud, o.loud...)
	r.control = append(r.control, o.control...)
}

func (p *probed) join(o probed) {
	p.times = append(p.times, o.times...)
	p.failed += o.failed
	if o.last != nil {
		p.last = o.last
	}
}

// worse is the 99th percentile of the probes beside the attack against that of the control.
func (r *row) worse() float64 { return against(r.loud.all(), r.control.all()) }

// interval is where worse lies for 19 of 20 such measurements, as far as these turns say: where it
// lies when pairs of a turn and its control are drawn from them (the bootstrap; Efron, 1979).
func (r *row) interval() (least, most float64) {
	n := min(len(r.loud), len(r.control))
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // the same turns give the same interval
	all := make([]float64, draws)
	for i := range all {
		var loud, control probed
		for range n {
			one := random.IntN(n)
			loud.join(r.loud[one])
			control.join(r.control[one])
		}
		all[i] = against(loud, control)
	}
	slices.Sort(all)
	return all[int(draws*outside)], all[int(draws*(1-outside))]
}

// floor is what the same comparison gives for the control against itself, every other turn
// against the rest: a smaller difference says nothing.
func (r *row) floor() float64 {
	halves := r.control.apart()
	one := against(halves[0], halves[1])
	if one == 0 {
		return 0
	}
	return max(one, 1/one)
}

// against is a 99th percentile against another.
func against(loud, control probed) float64 {
	at := control.times.At(stage.Percentile99)
	if at == 0 {
		return 0
	}
	return float64(loud.times.At(stage.Percentile99)) / float64(at)
}

// bounded reports that what the attacker costs has a bound, by whichever means.
func (r *row) bounded() bool {
	return r.memory <= r.most && (r.outcome.Told || r.outcome.Refused > 0 || r.host.Seconds() <= mostCores*r.lasts.Seconds())
}

func (r *row) verdict() (words string, good bool) {
	switch loud := r.loud.all(); {
	case loud.failed > 0:
		return fmt.Sprintf("HONEST CALLS FAILED: %d, %v", loud.failed, loud.last), false
	case r.memory > r.most:
		return "OPEN: memory", false
	case r.outcome.CutAfter > 0:
		return "cut off after " + r.outcome.CutAfter.Round(time.Millisecond).String() + ": " + r.outcome.Reason, true
	case r.bounded() && r.outcome.Refused > 0:
		return fmt.Sprintf("bounded: %d refused", r.outcome.Refused), true
	case r.bounded():
		return "bounded", true
	}
	return "OPEN: processor", false
}

// table prints rows as they come.
type table struct {
	out   io.Writer
	open  int
	worse []float64 // of each attack by a plugin
	truly int       // of them are above what is tolerable with all of their interval
}

func (t *table) begin() {
	_, _ = fmt.Fprintf(t.out, "%-50s %9s %8s %8s %5s %17s %17s %17s %6s %5s %9s %5s %12s %s\n", "attack", "sent", "host CPU",
		"memory", "fails", "quiet p50/p99", "attack p50/p99", "control p50/p99", "calls", "worse", "19 of 20", "floor", "all CPU", "verdict")
}

func (t *table) add(r row) {
	verdict, good := r.verdict()
	if !good {
		t.open++
	}
	loud := r.loud.all()
	control, worse, rounds, floor, used := "", "", "", "", ""
	if len(r.control) > 0 {
		control, worse = latency(r.control.all()), fmt.Sprintf("%.2f", r.worse())
		used = fmt.Sprintf("%.2f/%.2fs", r.used.Seconds(), r.elsewhere.Seconds())
		t.worse = append(t.worse, r.worse())
	}
	if len(r.control) > 1 {
		least, most := r.interval()
		rounds, floor = fmt.Sprintf("%.2f-%.2f", least, most), fmt.Sprintf("%.2f", r.floor())
		if least > tolerable {
			t.truly++
		}
	}
	const mebi = 1 << 20
	_, _ = fmt.Fprintf(t.out, "%-50s %9d %7.2fs %4d MiB %5d %17s %17s %17s %6d %5s %9s %5s %12s %s\n",
		r.kind.Who+": "+r.kind.Name, r.outcome.Sent, r.host.Seconds(), max(r.memory, 0)/mebi, loud.failed,
		latency(r.quiet), latency(loud), control, len(loud.times), worse, rounds, floor, used, verdict)
}

func (t *table) end() error {
	if len(t.worse) > 0 {
		slices.Sort(t.worse)
		above := len(t.worse) - sort.SearchFloat64s(t.worse, math.Nextafter(tolerable, tolerable+1))
		_, _ = fmt.Fprintf(t.out, "Beside a bad plugin another one's 99th percentile is %.2f times (median of %d attacks) what it is\n"+
			"beside another host that is attacked in the same way: the same processor time, at the same moments; at most %.2f\n"+
			"is to be reached, on an idle machine: %d are above, %d of them with all of their interval, the worst is %.2f.\n",
			t.worse[len(t.worse)/2], len(t.worse), tolerable, above, t.truly, t.worse[len(t.worse)-1])
	}
	if t.open > 0 {
		return fmt.Errorf("%w: %d", errOpen, t.open)
	}
	return nil
}

func latency(p probed) string {
	at := func(q float64) float64 { return p.times.At(q).Seconds() * float64(time.Second/time.Millisecond) }
	return fmt.Sprintf("%.1f/%.1f ms", at(middle), at(stage.Percentile99))
}
