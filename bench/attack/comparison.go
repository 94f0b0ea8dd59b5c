package main

import (
	"fmt"
	"slices"

	"github.com/masegraye/connect-plugin-go/bench/stage"
)

// still is how honest calls took beside attackers that are no plugins, against a host that nobody attacks.
type still struct {
	loud, quiet   stage.Times // of all attacks
	median, worse []float64   // of each, of the median and of the 99th percentile
}

// compare returns what a row says, and takes it in.
func (s *still) compare(r *row) string {
	loud := r.loud.all().times
	s.loud, s.quiet = append(s.loud, loud...), append(s.quiet, r.quiet.times...)
	median, worse := times(loud, r.quiet.times)
	s.median, s.worse = append(s.median, median), append(s.worse, worse)
	return fmt.Sprintf("%.2f/%.2f", median, worse)
}

// said is what came of it.
func (s *still) said() string {
	median, worse := times(s.loud, s.quiet)
	return fmt.Sprintf("Honest calls beside strangers and hostile providers, against those of a quiet host,\n"+
		"of which at most %.2f is to be reached:\n"+
		"p50 %.2f times (all calls together), at worst %.2f, %d of %d attacks above; p99 %.2f times, at worst %.2f, %d above.\n",
		twice, median, slices.Max(s.median), above(s.median, twice), len(s.median), worse, slices.Max(s.worse), above(s.worse, twice))
}

// times is how much longer some calls took than others, at the median and at the 99th percentile.
func times(some, others stage.Times) (median, worse float64) {
	return ratio(some.At(middle), others.At(middle)), ratio(some.At(stage.Percentile99), others.At(stage.Percentile99))
}

// above is how many are more than a bound.
func above(all []float64, bound float64) (n int) {
	for _, one := range all {
		if one > bound {
			n++
		}
	}
	return n
}

// tally is how much worse another plugin's calls were than beside something else, over all attacks.
type tally struct {
	worse []float64
	first []float64 // the same in the beginning of a turn
	truly int       // of them are above what is tolerable with all of their interval

	loud, beside probed // of all attacks together, as of a plugin that attacks in every way in turn
}

// compare returns what a row says of a comparison, and takes it in.
func (t *tally) compare(r *row, beside turns) (words string) {
	if len(beside) == 0 {
		return ""
	}
	worse := r.worse(beside)
	t.loud.join(r.loud.all())
	t.beside.join(beside.all())
	t.worse = append(t.worse, worse)
	t.first = append(t.first, ratio(r.loud.all().first.At(stage.Percentile99), beside.all().first.At(stage.Percentile99)))
	words = fmt.Sprintf("%16s %5.2f", latency(beside.all()), worse)
	if len(beside) == 1 {
		return words
	}
	least, most := r.interval(beside)
	if least > tolerable {
		t.truly++
	}
	return words + fmt.Sprintf(" %.2f-%.2f floor %.2f", least, most, beside.floor())
}

// said is what came of a comparison.
func (t *tally) said(beside string) string {
	slices.Sort(t.worse)
	slices.Sort(t.first)
	return fmt.Sprintf("%s: %.2f times of all calls of %d attacks together (%.2f the median of attacks), %d above %.2f, "+
		"%d of them with all of their interval, at worst %.2f; in the first %v of a turn %.2f.\n",
		beside, against(t.loud, t.beside), len(t.worse), t.worse[len(t.worse)/2], above(t.worse, tolerable), tolerable,
		t.truly, t.worse[len(t.worse)-1], beginning, t.first[len(t.first)/2])
}
