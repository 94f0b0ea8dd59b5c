package connectplugin

import (
	"cmp"
	"context"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// HealthProbeConfig says how a host watches over its plugins. It asks each provider that
// it can dial how it is (PluginControl), once in every interval at a random moment, but
// not one that goes on reporting its health itself and answered a routed call within the interval;
// and one that reports in every interval, and was healthy when it was asked, only in every sixth
// or so.
// Any answer is a sign of life, also that of a plugin that knows no such question. One
// that does not answer is unhealthy after a while, whatever it reports itself, until it
// answers again. How long one takes to answer delays no other. One that calls do not reach, because it cannot be dialled or
// somebody else answers in its place, is asked at once, then every second until it is unhealthy, and then less and less often.
// So is one that seems to hang: a call waited for a second or more, its caller gave it up, and the plugin answered no other meanwhile.
type HealthProbeConfig struct {
	// Disabled turns probing off: health is what plugins report then.
	Disabled bool
	// Interval is the time between two questions to one plugin. Zero means 10 s; 10 ms is the least.
	Interval time.Duration
	// Timeout bounds one question, connecting included. Zero means 3 s; 1 ms is the least.
	Timeout time.Duration
	// FailureThreshold is how many questions in a row have to fail before the
	// plugin is unhealthy. Zero means 3.
	FailureThreshold int
	// ReportsPerSecond is how many health reports a second all plugins together are to send.
	// Where there are more than fit into an Interval, each is asked to repeat a report that
	// says nothing new less often, up to every two minutes and four times in a Lease, and is
	// asked itself as much less often. What has changed is reported at once. Zero means 100:
	// up to 1,000 plugins that report every 10 s.
	ReportsPerSecond int
	// MaxConcurrent bounds the questions in flight, of which there is at most one for
	// each plugin. With a bound, plugins that do not answer delay the questions to
	// others. Zero means no bound.
	MaxConcurrent int
	// Lease is how long a plugin may be silent, whether it provides something or only
	// calls: no call, no report, no renewal, no open stream and no answer. Then its
	// identity ends and with it all that it has; a [Client] that is still there obtains
	// another with its next call. It is at least two intervals. It does not hold for
	// plugins in the host's own process, for those that it adopted, and for providers with
	// an open connection, unless they can be asked or have reported. It begins anew where the host itself stood still for longer
	// than an interval. Zero means 10 min.
	Lease time.Duration
}

const (
	defaultProbeInterval = 10 * time.Second
	defaultProbeTimeout  = 3 * time.Second
	defaultProbeFailures = 3
	defaultLease         = 10 * time.Minute
	defaultReports       = 100 // a second

	mostPace      = 2 * time.Minute // between two reports
	pacesPerLease = 4

	pressInterval = time.Second // between two questions to one that others wait for to be dead

	mostDoublings = 16 // of that

	leastRest, moreRest = 4, 4 // rounds in which a plugin that reports and is well is not asked
)

func (c HealthProbeConfig) withDefaults() HealthProbeConfig {
	c.Interval = cmp.Or(c.Interval, defaultProbeInterval)
	c.Timeout = cmp.Or(c.Timeout, defaultProbeTimeout)
	c.FailureThreshold = cmp.Or(c.FailureThreshold, defaultProbeFailures)
	c.ReportsPerSecond = cmp.Or(c.ReportsPerSecond, defaultReports)
	c.Lease = cmp.Or(c.Lease, max(defaultLease, 2*c.Interval))
	return c
}

func (c HealthProbeConfig) validate() error {
	for _, f := range []struct {
		name     string
		negative bool
	}{
		{"Interval", c.Interval < 0},
		{"FailureThreshold", c.FailureThreshold < 0},
		{"ReportsPerSecond", c.ReportsPerSecond < 0},
		{"MaxConcurrent", c.MaxConcurrent < 0},
		{"Lease", c.Lease < 0},
	} {
		if f.negative {
			return fieldError("HealthProbe."+f.name, isNegative)
		}
	}
	if d := c.withDefaults(); d.Lease < 2*d.Interval {
		return fieldError("HealthProbe.Lease", "%s is shorter than two of HealthProbe.Interval, %s, so that a plugin could not show in time "+
			"that it is alive; write %s or more, or a shorter Interval", d.Lease, d.Interval, 2*d.Interval)
	}
	if err := checkDuration("HealthProbe.Timeout", c.Timeout, leastDuration); err != nil {
		return err
	}
	return checkDuration("HealthProbe.Interval", c.Interval, leastInterval)
}

// reasonSilent says that an identity ended because its lease did.
const reasonSilent tokenstore.Reason = "silent"

// silentReason is what people are told of a plugin that does not answer.
const silentReason = "does not answer the host"

// strangerReason is what they are told of one at whose endpoint somebody answers who does not prove that it is the plugin.
const strangerReason = "another process answers in its place"

// prober asks plugins how they are. One goroutine owns it; a question in flight
// has one of its own.
type prober struct {
	// Fixed at creation.
	cfg HealthProbeConfig
	// list returns the plugins to watch over, ask asks one, tell passes on what
	// the answers amount to, sign notes that one answered, doubt that one did not
	// that was asked at once, and withdraw ends a plugin that was silent for too long.
	list     func() []probeTarget
	ask      func(context.Context, *tokenstore.Identity) (catalog.HealthReport, error)
	tell     func(id *tokenstore.Identity, endpoint string, report catalog.HealthReport, err error)
	sign     func(*tokenstore.Identity)
	doubt    func(*tokenstore.Identity)
	withdraw func(*tokenstore.Identity)
	awaited  func(*tokenstore.Identity) bool   // seems to be dead, and others stand by for what it provides
	gone     func(*tokenstore.Identity)        // did not answer as often as makes it unhealthy
	reached  func(*tokenstore.Identity) string // where a plugin is dialled
	spared   func(*tokenstore.Identity)        // need not be asked for some rounds
	slow     func(time.Duration)               // how often plugins are to report at most, zero for as they please
	answers  chan probeAnswer
	urgent   chan urgency // to ask at once
	asking   sync.WaitGroup

	// Used by run alone.
	plugins  map[string]*probed // by runtime id
	queue    []*probed          // to ask in this round, in this order
	began    time.Time          // the round
	step     time.Duration      // between two questions of the round
	pace     time.Duration      // in which plugins report and are asked
	asked    int                // questions of the round
	inFlight int
	next     time.Time // when something is due
	resumed  time.Time // when it went on after it stood still, from when leases count
}

// probeTarget is a plugin.
type probeTarget struct {
	id       *tokenstore.Identity
	endpoint string    // where the host dials it, empty for nowhere, and where it provides nothing
	leased   bool      // it has to show life, whether or not it can be asked
	reported time.Time // when it last did, zero for never
}

// probed is what the prober knows of a plugin.
type probed struct {
	id       *tokenstore.Identity
	endpoint string
	failures int       // in a row
	failed   time.Time // when it last did
	reports  bool
	reported time.Time // when it last did, as it was known at the beginning of the round
	answered time.Time // well, when it was last asked
	rests    int       // so many paces from then on it need not be asked while it reports
	spared   bool      // that was told
	asking   bool
	again    bool // its turn came, or it became suspect, while it was being asked
	suspect  bool // it is asked at once, because another life of it may have taken its place
	listed   bool // in the current round
	told     bool
	last     catalog.Health // that was told
	silent   bool           // that it does not answer was told
	pressed  bool           // it is asked again soon
	missed   bool           // calls do not reach it, and it has not answered since
}

// urgency is the wish to have a plugin asked at once.
type urgency struct {
	id     *tokenstore.Identity
	missed bool // a call did not reach it
}

type probeAnswer struct {
	plugin *probed
	report catalog.HealthReport
	err    error
}

// maxUrgent bounds the questions that wait to be asked at once. What finds no room is
// asked in its turn.
const maxUrgent = 256

func newProber(cfg HealthProbeConfig) *prober {
	return &prober{
		cfg: cfg, slow: func(time.Duration) {}, plugins: map[string]*probed{},
		awaited: func(*tokenstore.Identity) bool { return false }, gone: func(*tokenstore.Identity) {},
		reached: func(*tokenstore.Identity) string { return "" }, spared: func(*tokenstore.Identity) {},
		answers: make(chan probeAnswer), urgent: make(chan urgency, maxUrgent),
	}
}

// run watches over plugins until ctx ends, and waits for the questions in flight.
func (p *prober) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer p.asking.Wait()
	defer cancel()
	timer := time.NewTimer(mathrand.N(p.cfg.Interval)) //nolint:gosec // jitter is no secret
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-p.answers:
			p.settle(a)
			if a.plugin.again {
				a.plugin.again = false
				p.probe(ctx, a.plugin)
			}
		case u := <-p.urgent:
			p.askNow(ctx, u)
		case <-timer.C:
		}
		now := time.Now()
		if p.stood(now) {
			p.resumed = now
		}
		p.next = p.advance(ctx, now)
		timer.Reset(time.Until(p.next))
	}
}

// mostLate is how late the prober may be where it only has much to do.
const mostLate = time.Second

// stood reports whether the prober did not run when it was to, as where the host was stopped, or its machine slept. What plugins
// showed meanwhile nobody has read yet.
func (p *prober) stood(now time.Time) bool {
	return !p.next.IsZero() && now.Sub(p.next) > max(p.cfg.Interval/2, min(mostLate, p.cfg.Lease/pacesPerLease))
}

// advance does what is due and returns when the next thing is, beside answers.
func (p *prober) advance(ctx context.Context, now time.Time) time.Time {
	if len(p.queue) == 0 && !now.Before(p.began.Add(p.cfg.Interval)) {
		p.begin(now)
	}
	for len(p.queue) > 0 && p.room() {
		if due := p.due(); now.Before(due) {
			return due
		}
		next := p.queue[0]
		p.queue = p.queue[1:]
		p.asked++
		switch {
		case next.id.Ended(), p.evident(next, now):
		case next.asking:
			next.again = true
		default:
			p.probe(ctx, next)
		}
	}
	if len(p.queue) > 0 {
		return now.Add(p.cfg.Interval) // an answer comes before
	}
	return p.began.Add(p.cfg.Interval)
}

// room reports whether one more question may be asked.
func (p *prober) room() bool { return p.cfg.MaxConcurrent == 0 || p.inFlight < p.cfg.MaxConcurrent }

// evident reports whether a plugin that goes on saying itself how it is need not be asked: it showed
// within the interval that it answers calls, or answered lately. Calls alone show that somebody answers.
func (p *prober) evident(plugin *probed, now time.Time) bool {
	if !p.reporting(plugin) || plugin.missed || plugin.told && plugin.last == catalog.HealthUnhealthy {
		return false
	}
	if now.Sub(plugin.id.LastServed()) <= p.cfg.Interval {
		plugin.failures = 0
		return true
	}
	return p.resting(plugin, now)
}

// resting reports whether a plugin goes on reporting, and answered so well that it need not be asked yet.
func (p *prober) resting(plugin *probed, now time.Time) bool {
	return p.reporting(plugin) && now.Before(plugin.answered.Add(p.pace*time.Duration(plugin.rests)))
}

// spare says so of a plugin that rests, where there are so many that they report less often: what is kept for each adds up.
func (p *prober) spare(plugin *probed, now time.Time) {
	if !plugin.spared && p.pace > p.cfg.Interval && p.resting(plugin, now) {
		plugin.spared = true
		p.spared(plugin.id)
	}
}

// reporting reports whether a plugin goes on reporting, and nobody else is known to answer in its place.
func (p *prober) reporting(plugin *probed) bool {
	return plugin.reports && p.began.Sub(plugin.reported) < p.pace*3/2 && !declared(plugin.id).adopted.missed()
}

// rest has a plugin that answered well not asked for some rounds while it reports, so that
// what most questions would tell is not asked for. How many differs, so that plugins that
// came together are not asked together.
func (p *prober) rest(plugin *probed, health catalog.Health, now time.Time) {
	plugin.rests, plugin.spared = 0, false
	if health == catalog.HealthHealthy {
		plugin.answered, plugin.rests = now, leastRest+mathrand.IntN(moreRest) //nolint:gosec // jitter is no secret
		p.spare(plugin, now)
	}
}

// hurry has a plugin asked at once. It does not block.
func (p *prober) hurry(id *tokenstore.Identity) { p.urge(id, false) }

// urge does the same, also where it is since a call did not reach the plugin.
func (p *prober) urge(id *tokenstore.Identity, missed bool) {
	select {
	case p.urgent <- urgency{id, missed}:
	default:
	}
}

// askNow asks a plugin out of its turn.
func (p *prober) askNow(ctx context.Context, u urgency) {
	id, plugin := u.id, p.known(u.id)
	if u.missed {
		if plugin.missed = true; plugin.asking || plugin.pressed {
			return
		}
	}
	plugin.suspect, plugin.pressed, plugin.again = true, false, plugin.again || plugin.asking
	if plugin.endpoint == "" {
		plugin.endpoint = p.reached(id)
	}
	switch {
	case time.Since(plugin.failed) < pressInterval && p.awaited(id): // whoever wants it dead makes it no sooner so
		p.press(plugin)
	case !plugin.asking && p.room() && !id.Ended():
		p.probe(ctx, plugin)
	}
}

func (p *prober) known(id *tokenstore.Identity) *probed {
	plugin := p.plugins[id.RuntimeID()]
	if plugin == nil {
		plugin = &probed{id: id}
		p.plugins[id.RuntimeID()] = plugin
	}
	return plugin
}

// due is when the first of the queue is asked. Questions are spread evenly over
// the interval, in a new random order each time.
func (p *prober) due() time.Time { return p.began.Add(time.Duration(p.asked) * p.step) }

// begin begins a round: it ends the plugins that were silent for too long and
// queues the others.
func (p *prober) begin(now time.Time) {
	p.began, p.asked, p.queue = now, 0, p.queue[:0]
	reporting := 0
	for _, target := range p.list() {
		if !target.reported.IsZero() {
			reporting++
		}
		if p.silent(target, now) {
			p.withdraw(target.id)
			continue
		}
		if target.endpoint != "" && !p.cfg.Disabled {
			known := p.at(target)
			known.listed, known.reports, known.reported = true, !target.reported.IsZero(), target.reported
			p.queue = append(p.queue, known)
		}
	}
	p.paceFor(reporting)
	// Those that rest all the round long have no turn in it, so that nobody wakes up for them.
	p.queue = slices.DeleteFunc(p.queue, func(known *probed) bool {
		p.spare(known, now)
		return p.resting(known, now.Add(p.cfg.Interval))
	})
	for runtimeID, known := range p.plugins {
		if !known.listed && !known.asking {
			delete(p.plugins, runtimeID)
		}
		known.listed = false
	}
	mathrand.Shuffle( //nolint:gosec // the order is no secret
		len(p.queue), func(i, j int) { p.queue[i], p.queue[j] = p.queue[j], p.queue[i] })
	p.step = p.cfg.Interval / time.Duration(max(len(p.queue), 1))
}

// paceFor says how often each of so many plugins reports.
func (p *prober) paceFor(reporting int) {
	interval := p.cfg.Interval
	wanted := time.Duration(float64(time.Second) * float64(reporting) / float64(p.cfg.ReportsPerSecond))
	p.pace = max(interval, min(wanted, mostPace, p.cfg.Lease/pacesPerLease))
	if p.pace > interval {
		p.slow(p.pace.Round(time.Second))
	} else {
		p.slow(0)
	}
}

// at is what is known of a plugin where it is now: how it was elsewhere says nothing.
func (p *prober) at(target probeTarget) *probed {
	known := p.known(target.id)
	if known.endpoint != target.endpoint {
		known = &probed{id: target.id, endpoint: target.endpoint, suspect: known.suspect && !known.asking}
		p.plugins[target.id.RuntimeID()] = known
	}
	return known
}

// silent reports whether a plugin gave no sign of life for the lease.
func (p *prober) silent(target probeTarget, now time.Time) bool {
	if !target.leased && (target.endpoint == "" || p.cfg.Disabled) && target.reported.IsZero() || target.id.Busy() {
		return false
	}
	last := target.id.LastSeen()
	for _, later := range []time.Time{target.reported, p.resumed} {
		if later.After(last) {
			last = later
		}
	}
	return now.Sub(last) > p.cfg.Lease
}

// probe asks a plugin, in a goroutine that ends within the timeout.
func (p *prober) probe(ctx context.Context, plugin *probed) {
	plugin.asking = true
	p.inFlight++
	p.asking.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
		defer cancel()
		report, err := p.ask(bounded, plugin.id)
		select {
		case p.answers <- probeAnswer{plugin, report, err}:
		case <-ctx.Done():
		}
	})
}

// settle takes an answer in.
func (p *prober) settle(a probeAnswer) {
	plugin := a.plugin
	suspect := plugin.suspect
	plugin.asking, plugin.suspect = false, suspect && plugin.again && a.err == nil
	p.inFlight--
	report := a.report
	if a.err != nil {
		plugin.rests, plugin.failed = 0, time.Now()
		if suspect {
			plugin.again = false
			p.doubt(plugin.id)
		}
		if plugin.failures++; plugin.failures < p.cfg.FailureThreshold {
			p.press(plugin)
			return
		}
		declared(plugin.id).failure.Store(&failedCall{at: time.Now(), what: printable(a.err.Error())})
		report = unanswered(a.err)
	} else {
		plugin.failures, plugin.missed = 0, false
		if !plugin.suspect { // else it answered before it became so
			p.sign(plugin.id)
		}
	}
	p.rest(plugin, report.Health, time.Now())
	if silent := a.err != nil; !plugin.told || plugin.last != report.Health || plugin.silent != silent {
		plugin.told, plugin.last, plugin.silent = true, report.Health, silent
		p.tell(plugin.id, plugin.endpoint, report, a.err)
	}
	if a.err != nil {
		p.gone(plugin.id)
		p.press(plugin)
	}
}

// press has a plugin that did not answer asked again soon, where others wait for it to be dead, or calls do not reach
// it: then later and later once it is unhealthy, up to the interval.
func (p *prober) press(plugin *probed) {
	awaited := p.awaited(plugin.id)
	if plugin.pressed || !awaited && !plugin.missed {
		return
	}
	plugin.pressed = true
	wait := pressInterval
	if over := plugin.failures - p.cfg.FailureThreshold; over >= 0 && !awaited {
		wait = min(pressInterval<<min(over+1, mostDoublings), max(p.cfg.Interval, pressInterval))
	}
	time.AfterFunc(wait, func() { p.hurry(plugin.id) })
}
