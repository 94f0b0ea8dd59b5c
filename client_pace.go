package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/seldom"
)

// How long a client that cannot reach its host waits at most before it tries again: a
// part of the time that this has lasted, so that a short interruption is over soon and a
// long one costs little, between bounds. To be turned away costs both sides more than to
// find nobody.
const (
	paceLost   = 100 * time.Millisecond // after the loss of a connection
	paceLeast  = 250 * time.Millisecond
	paceMost   = 5 * time.Second
	paceShare  = 4 // a quarter of the time that it has lasted
	paceRefuge = 2 // the same where the host says, or shows, that it has too much to do: a half
	paceBusy   = time.Second
	paceIdle   = 30 * time.Second
	// paceAsked bounds what a host may ask for.
	paceAsked = 5 * time.Minute
)

// pace says when a client that lost its host, or its identity, tries again. All that
// waits for the host keeps to the one schedule, and each wait is any part of its bound
// ("full jitter"), so that thousands of clients do not come at the same time. The caller
// guards it and says what time it is.
type pace struct {
	since    time.Time // when the failures began; zero: the host answers
	next     time.Time
	err      error // the last failure
	refusals int   // in a row
	tried    bool  // an attempt failed, after whatever began the failures
}

// lost begins an interruption: a connection ended.
func (p *pace) lost(now time.Time, err error) {
	if !p.since.IsZero() {
		return
	}
	p.since, p.err = now, err
	p.next = now.Add(rand.N(paceLost)) //nolint:gosec // jitter is no secret
}

// failed takes account of an attempt that failed.
func (p *pace) failed(now time.Time, err error) {
	if p.since.IsZero() {
		p.since = now
	}
	p.err, p.tried = err, true
	if refusedPlugin(err) {
		p.refusals++
		p.next = now.Add(regrant.After(p.refusals))
		return
	}
	p.refusals = 0
	lasted := now.Sub(p.since)
	most, asked := min(max(lasted/paceShare, paceLeast), paceMost), time.Duration(0)
	switch {
	case connect.CodeOf(err) == connect.CodeResourceExhausted:
		most, asked = min(max(lasted/paceRefuge, paceBusy), paceIdle), askedDelay(err)
	case errors.Is(err, errTurnedAway):
		most = min(max(lasted/paceRefuge, paceBusy), paceMost)
	}
	p.next = now.Add(asked + rand.N(most)) //nolint:gosec // jitter is no secret
}

// refusedPlugin reports that the host does not take the plugin, and not only its certificate, as long as an operator
// does nothing about it.
func refusedPlugin(err error) bool {
	_, trust := errors.AsType[*trustError](err)
	return errors.Is(err, ErrHandshakeRefused) && !trust
}

// hold puts the next attempt off where attempts succeed and are of no use.
func (p *pace) hold(now time.Time, wait time.Duration, err error) {
	if p.since.IsZero() {
		p.since = now
	}
	p.err, p.next = err, now.Add(wait)
}

// over ends an interruption and reports whether there was one.
func (p *pace) over() bool {
	was := !p.since.IsZero()
	*p = pace{}
	return was
}

// wait returns how long it is until the next attempt, nothing or less if that is due.
func (p *pace) wait(now time.Time) time.Duration { return p.next.Sub(now) }

// askedDelay returns how long a host asks its client to wait: the retry_delay of a
// RetryInfo, or the seconds of the header Retry-After (RFC 9110, section 10.2.3).
func askedDelay(err error) time.Duration {
	var coded *connect.Error
	if !errors.As(err, &coded) {
		return 0
	}
	for _, d := range coded.Details() {
		if d.Type() == retryInfo {
			return bounded(retryDelay(d.Bytes()))
		}
	}
	if s, err := time.ParseDuration(coded.Meta().Get(headerRetryAfter) + "s"); err == nil {
		return bounded(s)
	}
	return 0
}

func bounded(d time.Duration) time.Duration { return min(max(d, 0), paceAsked) }

// Fields of google.protobuf.Duration.
const (
	fieldSeconds = 1
	fieldNanos   = 2
)

// retryDelay reads a RetryInfo, whose generated code the library does without. What is
// malformed asks for nothing.
func retryDelay(m []byte) time.Duration {
	var seconds, nanos uint64
	eachField(m, func(n protowire.Number, _ uint64, delay []byte) {
		if n != fieldRetryDelay {
			return
		}
		eachField(delay, func(n protowire.Number, v uint64, _ []byte) {
			switch n {
			case fieldSeconds:
				seconds = v
			case fieldNanos:
				nanos = v
			default:
			}
		})
	})
	most := uint64(paceAsked / time.Second)
	if int64(seconds) < 0 || int64(nanos) < 0 {
		return 0
	}
	return time.Duration(min(seconds, most))*time.Second + time.Duration(min(nanos, uint64(time.Second)))
}

// eachField calls f for the varints and the bytes of a message.
func eachField(m []byte, f func(n protowire.Number, v uint64, b []byte)) {
	for len(m) > 0 {
		n, kind, tag := protowire.ConsumeTag(m)
		if tag < 0 {
			return
		}
		var v uint64
		var b []byte
		var size int
		switch kind {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(m[tag:])
		case protowire.BytesType:
			b, size = protowire.ConsumeBytes(m[tag:])
		default:
			size = protowire.ConsumeFieldValue(n, kind, m[tag:])
		}
		if size < 0 {
			return
		}
		f(n, v, b)
		m = m[tag+size:]
	}
}

// signsPerLease is how many times in a lease a client that makes no calls shows that it
// lives: one may be lost.
const signsPerLease = 3

// signs are what a client shows its host of being alive.
type signs struct {
	lease time.Duration                        // that the host states; zero for none
	shown time.Time                            // when the host last answered
	last  *connectpluginv1.ReportHealthRequest // nil where none was made
	waits string                               // the types for which it stands by, as the host says; empty where that says nothing
	after time.Duration                        // in which the host wants no report that says nothing new
	kept  bool                                 // stayAlive runs
}

// reported notes the last health report, to be repeated.
func (c *Client) reported(m *connectpluginv1.ReportHealthRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.signs.last = m
}

// mostReportAfter bounds what a host may ask for.
const mostReportAfter = 10 * time.Minute

// wantsNoReport notes how long the host wants to hear nothing that is not new.
func (c *Client) wantsNoReport(h http.Header) {
	after, err := time.ParseDuration(h.Get(headerReportAfter))
	if err != nil {
		after = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.signs.after, c.signs.waits = min(after, mostReportAfter), h.Get(headerStandby)
}

// standsBy returns the types for which the client stands by, and whether the host said so.
func (c *Client) standsBy() (types []string, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.signs.waits == "" || c.signs.waits == noStandby {
		return nil, c.signs.waits != ""
	}
	return strings.Split(c.signs.waits, ","), true
}

// reportAfter is how long the host wants to hear nothing that is not new.
func (c *Client) reportAfter() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signs.after
}

// stayAlive shows the host that the client lives, where no call does, until the client
// closes or a host states no lease.
func (c *Client) stayAlive() {
	if !backoff.Wait(c.life, firstSign) {
		return
	}
	c.attach()
	for {
		c.mu.Lock()
		s := c.signs
		if s.lease == 0 {
			c.signs.kept = false
		}
		c.mu.Unlock()
		if s.lease == 0 {
			return
		}
		// However short a lease the host states.
		if wait := max(s.lease/signsPerLease, renewFloor) - time.Since(s.shown); wait > 0 {
			if !backoff.Wait(c.life, wait) {
				return
			}
			continue
		}
		c.showLife(s.last)
		c.mu.Lock()
		if c.signs.shown = time.Now(); c.signs.last != s.last {
			c.signs.shown = time.Time{} // a newer report may have come before the repeated one
		}
		c.mu.Unlock()
	}
}

// firstSign is when a client that makes no calls first shows that it lives, after it
// obtained its identity.
const firstSign = time.Second

// attach has a connection open to the host, where there is none: that is a sign of life.
func (c *Client) attach() {
	if c.link == nil || c.link.Connected() {
		return
	}
	ctx, cancel := context.WithTimeout(c.life, c.cfg.Timeout)
	defer cancel()
	_, _ = c.link.Get(ctx) // the next call says what is wrong
}

func (c *Client) showLife(last *connectpluginv1.ReportHealthRequest) {
	ctx, cancel := context.WithTimeout(c.life, c.cfg.Timeout)
	defer cancel()
	ctx, _ = withBackground(ctx)
	m := cmp.Or(last, &connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY})
	if err := c.sendReport(ctx, m); err != nil {
		c.cfg.Logger.Debug("the host was not shown that the client lives", keyError, err)
	}
}

// Bounds of what a host, and the providers behind it, can make a client log: lines of a kind, and bytes of a text.
const (
	clientLogBurst = 16
	clientLogEvery = 10 * time.Second
	clientLogKinds = 1024
	clientLogText  = 2048
)

// newClientLog bounds a client's log. Lines of a kind are about the same type of a service.
func newClientLog(to *slog.Logger) *seldom.Handler {
	return seldom.New(to.Handler(), seldom.Config{
		Burst: clientLogBurst, Every: clientLogEvery, Kinds: clientLogKinds, Key: keyService, More: keyMore,
		Clip: func(s string) string { return printableTo(s, clientLogText) },
	})
}

// shareOf returns a context for an attempt at one of several endpoints: an equal part of the time that ctx has left for those
// that were not tried, and no more than such a part of Timeout, which is how long [Client.Connect] waits.
func (c *Client) shareOf(ctx context.Context, tried, among int) (context.Context, context.CancelFunc) {
	if among == 1 {
		return context.WithCancel(ctx)
	}
	share := c.cfg.Timeout / time.Duration(among)
	if deadline, ok := ctx.Deadline(); ok {
		share = min(share, time.Until(deadline)/time.Duration(among-tried+1))
	}
	return context.WithTimeout(ctx, share)
}

// settled reports whether the client is let in at a host that answers: a connection alone says little, for it may be to what
// stands before a host that has gone. It stays there, whatever else discovery finds, and needs
// no discovery: a list in another order each time would have it go from host to host, away from what it registered and watches.
func (c *Client) settled() bool {
	connected := c.link != nil && c.link.Connected()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready && (c.pace.since.IsZero() || connected && !c.pace.tried)
}
