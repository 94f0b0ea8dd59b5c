package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
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
	mostPart   = 0.5       // of all processors, where it is, or was cut off
	tolerable  = 1.2       // times the 99th percentile of the control
	twice      = 2.0       // times the latency of a quiet host, beside whoever is no plugin

	middle  = 0.5
	draws   = 400   // of turns, for an interval
	outside = 0.025 // of what they give, on either side of it
)

var errOpen = errors.New("attackers were neither cut off nor bounded, or honest calls failed")

// probed is what the honest callers noticed.
type probed struct {
	times  stage.Times
	first  stage.Times // of them, those of the beginning of a turn
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
	burning   time.Duration // what the burner used
	elsewhere time.Duration // the same as used where another host is attacked

	before        int64 // what the host had
	quiet         probed
	loud, control turns
	burnt         turns // beside a burner
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
	r.burning += o.burning
	r.memory = max(r.memory, o.memory)
	r.outcome = after(r.outcome, o.outcome)
	r.quiet.join(o.quiet)
	r.loud = append(r.loud, o.loud...)
	r.control = append(r.control, o.control...)
	r.burnt = append(r.burnt, o.burnt...)
}

func (p *probed) join(o probed) {
	p.times = append(p.times, o.times...)
	p.first = append(p.first, o.first...)
	p.failed += o.failed
	if o.last != nil {
		p.last = o.last
	}
}

// worse is the 99th percentile of the probes beside the attack against that beside something else.
func (r *row) worse(beside turns) float64 { return against(r.loud.all(), beside.all()) }

// interval is where worse lies for 19 of 20 such measurements, as far as these turns say: where it
// lies when pairs of a turn of each are drawn from them (the bootstrap; Efron, 1979).
func (r *row) interval(beside turns) (least, most float64) {
	n := min(len(r.loud), len(beside))
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // the same turns give the same interval
	all := make([]float64, draws)
	for i := range all {
		var loud, control probed
		for range n {
			one := random.IntN(n)
			loud.join(r.loud[one])
			control.join(beside[one])
		}
		all[i] = against(loud, control)
	}
	slices.Sort(all)
	return all[int(draws*outside)], all[int(draws*(1-outside))]
}

// floor is what the same comparison gives for turns against themselves, every other turn
// against the rest: a smaller difference says nothing.
func (t turns) floor() float64 {
	halves := t.apart()
	one := against(halves[0], halves[1])
	if one == 0 {
		return 0
	}
	return max(one, 1/one)
}

// against is a 99th percentile against another.
func against(loud, control probed) float64 {
	return ratio(loud.times.At(stage.Percentile99), control.times.At(stage.Percentile99))
}

// ratio is a time against another, zero against none.
func ratio(one, other time.Duration) float64 {
	if other == 0 {
		return 0
	}
	return float64(one) / float64(other)
}

// bounded reports that what the attacker costs has a bound, by whichever means.
func (r *row) bounded() bool {
	most := mostCores
	if r.outcome.Told || r.outcome.Refused > 0 || r.outcome.CutAfter > 0 {
		most = max(most, mostPart*float64(runtime.NumCPU()))
	}
	return r.memory <= r.most && r.host.Seconds() <= most*r.lasts.Seconds()
}

func (r *row) verdict() (words string, good bool) {
	switch loud := r.loud.all(); {
	case loud.failed > 0:
		return fmt.Sprintf("HONEST CALLS FAILED: %d, %v", loud.failed, loud.last), false
	case r.memory > r.most:
		return "OPEN: memory", false
	case !r.bounded():
		return "OPEN: processor", false
	case r.outcome.CutAfter > 0:
		words := "cut off after " + r.outcome.CutAfter.Round(time.Millisecond).String()
		if r.outcome.Reason != "" {
			words += ": " + r.outcome.Reason
		}
		return words, true
	case r.outcome.Refused > 0:
		return fmt.Sprintf("bounded: %d refused", r.outcome.Refused), true
	}
	return "bounded", true
}

// table prints rows as they come.
type table struct {
	out  io.Writer
	open int

	burner, other tally // what attacks by a plugin are compared with
	quiet         still // what those by anybody else are, and with another host
	apart         tally
}

const comparison = "p50/p99, worse, 19 of 20, floor"

func (t *table) begin() {
	_, _ = fmt.Fprintf(t.out, "%-50s %9s %8s %8s %5s %17s %17s %11s %6s %-45s %-45s %16s %16s %s\n",
		"attack", "sent", "host CPU", "memory", "fails",
		"quiet p50/p99", "attack p50/p99", "times quiet", "calls",
		"burner "+comparison, "other host "+comparison, "first p99", "all CPU", "verdict")
}

func (t *table) add(r row) {
	verdict, good := r.verdict()
	if !good {
		t.open++
	}
	loud := r.loud.all()
	used, first, quiet, other := "", "", "", &t.other
	if r.kind.Who != kinds.Plugin {
		quiet, other = t.quiet.compare(&r), &t.apart
	}
	if len(r.control) > 0 {
		first = fmt.Sprintf("%s/%s/%s ms", beginnings(loud), beginnings(r.burnt.all()), beginnings(r.control.all()))
		used = fmt.Sprintf("%.2f/%.2f/%.2fs", r.used.Seconds(), r.burning.Seconds(), r.elsewhere.Seconds())
	}
	const mebi = 1 << 20
	_, _ = fmt.Fprintf(t.out, "%-50s %9d %7.2fs %4d MiB %5d %17s %17s %11s %6d %-45s %-45s %16s %16s %s\n",
		r.kind.Who+": "+r.kind.Name, r.outcome.Sent, r.host.Seconds(), max(r.memory, 0)/mebi, loud.failed, latency(r.quiet), latency(loud),
		quiet, len(loud.times), t.burner.compare(&r, r.burnt), other.compare(&r, r.control), first, used, verdict)
}

func (t *table) end() error {
	if len(t.burner.worse) > 0 {
		_, _ = fmt.Fprintf(t.out, "How much worse another plugin's 99th percentile is beside a bad plugin, of which at most %.2f\n"+
			"is to be reached on an idle machine:\n%s", tolerable,
			t.burner.said("than beside a program that burns the same processor time at the same moments"))
	}
	if len(t.other.worse) > 0 {
		_, _ = io.WriteString(t.out, t.other.said("than beside another host that is attacked in the same way"))
	}
	if len(t.quiet.worse) > 0 {
		_, _ = io.WriteString(t.out, t.quiet.said())
	}
	if len(t.apart.worse) > 0 {
		_, _ = io.WriteString(t.out, t.apart.said("p99, against calls beside the same attack on another host of this machine"))
	}
	if t.open > 0 {
		return fmt.Errorf("%w: %d", errOpen, t.open)
	}
	return nil
}

func latency(p probed) string {
	return fmt.Sprintf("%.1f/%.1f ms", millis(p.times.At(middle)), millis(p.times.At(stage.Percentile99)))
}

func beginnings(p probed) string { return fmt.Sprintf("%.1f", millis(p.first.At(stage.Percentile99))) }

func millis(d time.Duration) float64 { return d.Seconds() * float64(time.Second/time.Millisecond) }
