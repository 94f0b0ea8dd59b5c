package proxy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/coarse"
)

const (
	maxIdleTick    = 10 * time.Second
	ticksPerPeriod = 4
)

// Provider forwards calls to one provider. Its methods are safe for concurrent
// use. A Provider owns its connections and has to be closed.
type Provider struct {
	// Fixed at creation.
	cfg        Config
	authority  string
	ctx        context.Context //nolint:containedctx // ends with the provider, as its dials do
	cancel     context.CancelFunc
	background sync.WaitGroup
	drained    chan struct{} // closed when it is closed and no call is left
	dials      *rate.Limiter // so that connections that serve a call each cost few TLS handshakes

	troubled  atomic.Bool // there may be a wait before the next dial
	grpcAlone atomic.Bool // questions are written in gRPC: it answered one in Connect as a server of gRPC does, or is likely to
	grpcGuess atomic.Bool // that is a guess: no question in gRPC was answered yet

	mu     sync.Mutex
	closed bool
	calls  map[*call]struct{}
	held   map[string]int // calls with a stream, by caller
	lines  lines
	looks  *coarse.Timer // nil where nothing is to be seen

	tenures tenures
	shown   certs.Shown // by this side, where it may have another one next time
}

// New returns a provider. It dials when the first call needs a connection. An
// error wraps [ErrConfig].
func New(cfg Config) (*Provider, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("new provider: %w", err)
	}
	p := &Provider{
		cfg:       cfg.withDefaults(),
		authority: cfg.Endpoint.authority(),
		drained:   make(chan struct{}),
		dials:     rate.NewLimiter(dialsPerSecond, dialsBurst),
		calls:     make(map[*call]struct{}),
		held:      make(map[string]int),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.grpcAlone.Store(p.cfg.GRPC)
	p.grpcGuess.Store(p.cfg.GRPC)
	if p.cfg.CallIdle > 0 {
		p.mu.Lock()
		p.background.Add(1)
		p.looks = p.cfg.Clock.AfterFunc(p.idleTick(), p.look)
		p.mu.Unlock()
	}
	return p, nil
}

// InFlight returns the number of calls that are being forwarded.
func (p *Provider) InFlight() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}

// Seal refuses further calls, unless some are in flight, and reports whether it did. A call that
// is said to be the last one still passes.
func (p *Provider) Seal() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.calls) > 0 {
		return false
	}
	p.closed = true
	p.drainedLocked()
	return true
}

// Drain refuses further calls and waits until those in flight have ended, or
// until ctx ends, whose cause it returns then. It leaves the connections open;
// Close follows.
func (p *Provider) Drain(ctx context.Context) error {
	p.Refuse()
	select {
	case <-p.drained:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close refuses further calls, breaks off those in flight, closes the
// connections and waits for the provider's own goroutines. The calls return
// shortly after; Drain waits for them. Close may be called more than once.
func (p *Provider) Close() {
	p.Refuse()
	p.mu.Lock()
	p.cancel() // under mu: nothing starts in the background any more
	if p.looks != nil && p.looks.Stop() {
		p.background.Done()
	}
	conns := p.lines.conns
	if p.lines.reserve != nil {
		conns = append(conns, p.lines.reserve)
	}
	p.lines.conns, p.lines.reserve = nil, nil
	calls := make([]*call, 0, len(p.calls))
	for c := range p.calls {
		calls = append(calls, c)
	}
	p.mu.Unlock()
	for _, c := range calls {
		c.interrupt(ErrClosed)
	}
	for _, conn := range conns {
		conn.Close()
	}
	p.background.Wait()
}

// Refuse refuses further calls, and leaves those in flight alone.
func (p *Provider) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.drainedLocked()
}

// drainedLocked tells whoever waits for it that no call is left and none comes.
func (p *Provider) drainedLocked() {
	if !p.closed || len(p.calls) > 0 {
		return
	}
	select {
	case <-p.drained: // before the last one, too
	default:
		close(p.drained)
	}
}

// enter counts a call in.
func (p *Provider) enter(c *call) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed && !c.Last {
		return ErrClosed
	}
	p.calls[c] = struct{}{}
	return nil
}

// leave counts a call out.
func (p *Provider) leave(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.calls, c)
	p.yieldLocked(c)
	p.offerLocked()
	if c.Urgent {
		p.offerReserveLocked()
	}
	p.drainedLocked()
}

// idleTick is how often the provider looks.
func (p *Provider) idleTick() time.Duration {
	return max(time.Millisecond, min(maxIdleTick, p.cfg.CallIdle/ticksPerPeriod))
}

// look interrupts calls on which nothing moves, and ends connections whose time is over. It
// looks again after a tick, until the provider is closed; between two looks nobody waits.
func (p *Provider) look() {
	tick := p.idleTick()
	for _, c := range p.idleCalls(tick) {
		c.interrupt(ErrIdle)
	}
	p.endTenures(time.Now())
	p.showRenewed(time.Now())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		p.background.Done()
		return
	}
	p.looks.Reset()
}

// idleCalls returns the calls on which nothing moved for too long.
func (p *Provider) idleCalls(tick time.Duration) []*call {
	p.mu.Lock()
	defer p.mu.Unlock()
	var idle []*call
	for c := range p.calls {
		if c.active.Swap(false) {
			c.silent = 0
		} else if c.silent += tick; c.silent >= p.cfg.CallIdle {
			idle = append(idle, c)
		}
	}
	return idle
}
