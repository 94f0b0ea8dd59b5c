package connectplugin

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/backoff"
)

// identity is a runtime identity as the plugin holds it.
type identity struct {
	runtimeID string
	token     string
	expires   time.Time // zero where the host did not say
	managed   bool      // given by SetRuntimeIdentity, not by a handshake
	serial    uint64    // of those that the client has had; zero before the first
	home      origin    // of the host that gave it
}

// prove answers the challenge of a health question; nil where there is none.
func (i identity) prove(challenge []byte) []byte {
	if len(challenge) == 0 || i.token == "" {
		return nil
	}
	return healthProof(i.token, i.runtimeID, challenge)
}

// HealthProof answers the challenge of a health question (PluginControl.GetHealth), for a
// plugin that serves without [ServePlugin]: it shows the host that this client's plugin
// answers where it says that it is. It returns nil where the question is about another
// runtime id, which is answered with not_found; an empty one is whoever answers. It is safe
// for concurrent use.
func (c *Client) HealthProof(runtimeID string, challenge []byte) []byte {
	id := c.currentIdentity()
	if runtimeID != "" && runtimeID != id.runtimeID || len(challenge) > maxChallenge {
		return nil
	}
	return id.prove(challenge)
}

// enrolment is a handshake that is on its way. Whoever needs its outcome waits for it,
// so that a client has one identity whoever noticed first that the last one was lost.
type enrolment struct {
	done chan struct{}
	err  error // set before done closes
}

func (c *Client) currentIdentity() identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}

// enrol waits for the handshake that is on its way, and begins one where none is: a
// renewal of the current identity, or a new enrolment where there is none that the host
// knows. One that its caller gives up goes on for the others, and for later.
func (c *Client) enrol(ctx context.Context, apart bool) error {
	c.mu.Lock()
	e, err := c.enrolmentLocked(ctx, apart)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return e.wait(ctx)
}

func (e *enrolment) wait(ctx context.Context) error {
	select {
	case <-e.done:
		return e.err
	case <-ctx.Done():
		return errorf(endCode(ctx), "handshake: %w", ctx.Err())
	}
}

// endCode is the code of the end of a context.
func endCode(ctx context.Context) connect.Code {
	if errors.Is(ctx.Err(), context.Canceled) {
		return connect.CodeCanceled
	}
	return connect.CodeDeadlineExceeded
}

// patience is how many times the timeout of a call a handshake may take. A host that a
// thousand plugins come back to is slow, and what its clients give up it has done in vain.
const patience = 3

func (c *Client) enrolmentLocked(ctx context.Context, apart bool) (*enrolment, error) {
	if c.closed || c.leaving {
		return nil, ErrClientClosed
	}
	if !c.made() {
		return nil, errUnmade
	}
	c.watchLocked()
	if c.enrolling == nil {
		e := &enrolment{done: make(chan struct{})}
		c.enrolling = e
		ctx = context.WithoutCancel(ctx)
		c.tasks.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, patience*c.cfg.Timeout)
			defer cancel()
			defer context.AfterFunc(c.life, cancel)()
			c.finish(e, c.handshake(ctx, apart))
		})
	}
	return c.enrolling, nil
}

// watchLocked begins to watch over the certificates of this side, once.
func (c *Client) watchLocked() {
	if c.watching || len(c.own) == 0 {
		return
	}
	c.watching = true
	c.tasks.Go(func() { c.vigil.Run(c.life, c.own...) })
}

// finish tells those who wait how the handshake went, and sets when the next may be.
func (c *Client) finish(e *enrolment, err error) {
	c.mu.Lock()
	c.enrolling = nil
	switch {
	case c.life.Err() != nil:
		if err != nil {
			err = ErrClientClosed
		}
	case err != nil:
		c.pace.failed(time.Now(), err)
	default:
		c.reachableLocked()
	}
	c.mu.Unlock()
	e.err = err
	close(e.done)
}

// reachableLocked ends an interruption and wakes those who wait for that.
func (c *Client) reachableLocked() {
	if c.pace.over() {
		close(c.reachable)
		c.reachable = make(chan struct{})
	}
}

// handshake renews the current identity, or enrols anew where the host does not know it,
// over a connection of its own or over one that calls go over too.
func (c *Client) handshake(ctx context.Context, apart bool) error {
	if _, err := c.findHost(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	id, refused := c.identity, c.refused
	c.mu.Unlock()
	if id.token != "" && id.serial != refused {
		if err := c.exchange(ctx, id, apart); err == nil || connect.CodeOf(err) != connect.CodeUnauthenticated {
			return err
		}
	}
	return c.exchange(ctx, identity{}, apart)
}

// renewed returns when the client has another identity than stale, which the host
// refused, or another host gave. The first who asks begins the handshake, the others wait for it. After one
// that failed the next has its time: who is patient waits for that, everybody else is
// told why there is no identity.
func (c *Client) renewed(ctx context.Context, stale identity, patient bool) error {
	for {
		c.mu.Lock()
		if c.identity.serial != stale.serial {
			c.mu.Unlock()
			return nil
		}
		if stale.managed || stale.token == "" {
			c.mu.Unlock()
			return connect.NewError(connect.CodeUnauthenticated, errIdentityEnded)
		}
		first := c.noticed != stale.serial
		forgotten := c.noticeLocked(stale)
		forgetful := forgotten && c.forgottenLocked(time.Now())
		wait, last := c.pace.wait(time.Now()), c.pace.err
		if c.enrolling == nil && wait > 0 && (!first || forgetful) {
			c.mu.Unlock()
			if forgetful {
				c.cfg.Logger.Warn("enrolling again", keyWait, wait.String(), keyError, errForgetful)
			}
			if !patient {
				return last
			}
			if err := c.pause(ctx); err != nil {
				return err
			}
			continue
		}
		e, err := c.enrolmentLocked(ctx, false)
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if forgotten {
			c.cfg.Logger.Warn("the host no longer knows this client; enrolling again", keyRuntimeID, stale.runtimeID)
		}
		return e.waitAs(ctx, patient)
	}
}

// noticeLocked takes note that an identity is of no use where the client is, and reports whether that is new, and because the host does
// not know it any more. Where another host gave it, the client may yet find that one.
func (c *Client) noticeLocked(stale identity) (forgotten bool) {
	known, first := c.isOfHostLocked(stale), c.noticed != stale.serial
	c.noticed = stale.serial
	if known {
		c.refused = stale.serial
	}
	return known && first
}

var errEnrolling = errors.New("the handshake is not over yet, and half of the time that the call had left is")

// waitAs waits, who is not patient for half of the time that ctx has left: who calls is to
// learn why nothing was done, and not that its time is over.
func (e *enrolment) waitAs(ctx context.Context, patient bool) error {
	if patient {
		return e.wait(ctx)
	}
	half, cancel := halfway(ctx)
	defer cancel()
	select {
	case <-e.done:
		return e.err
	case <-half.Done():
	}
	if ctx.Err() != nil {
		return e.wait(ctx)
	}
	return errEnrolling
}

// halfway returns a context that ends when half of the time is over that ctx has left.
func halfway(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	half, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(time.Until(deadline)/2, cancel)
	return half, func() {
		late.Stop()
		cancel()
	}
}

// An identity is brief that its host forgets before it is so old. After some in a row the next
// has to wait, after more where calls were answered with them.
const (
	briefLife = time.Second
	mostBrief = 4
	mostUsed  = 16
)

var errForgetful = errors.New("the host forgets this client as soon as it has enrolled; where several hosts answer under one URL, " +
	"give each its own")

// forsake has calls wait for another identity than stale, which the host refused, before
// anybody is told of that.
func (c *Client) forsake(stale identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.identity.serial == stale.serial && stale.token != "" {
		c.refused = stale.serial
	}
}

// forgottenLocked takes account of an identity that the host does not know any more, and
// reports whether it is one of so many brief ones that the next has to wait.
func (c *Client) forgottenLocked(now time.Time) bool {
	if c.brief++; now.Sub(c.adopted) >= briefLife {
		c.brief = 0
	}
	most := mostBrief
	if c.accepted == c.identity.serial {
		most = mostUsed
	}
	if c.brief < most {
		return false
	}
	c.pace.hold(now, backoff.Reconnect.After(c.brief-most+1), errForgetful)
	return true
}

// pause waits until the next attempt to reach the host is due, or somebody has reached it.
func (c *Client) pause(ctx context.Context) error {
	c.mu.Lock()
	wait, reachable := c.pace.wait(time.Now()), c.reachable
	c.mu.Unlock()
	if wait <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-reachable:
		return nil
	case <-ctx.Done():
		return c.endError(ctx)
	case <-c.life.Done():
		return ErrClientClosed
	}
}

// awaitHost waits, no longer than until somebody has reached the host that was out of reach, or refused this
// client, and reports whether ctx was alive then.
func (c *Client) awaitHost(ctx context.Context, most time.Duration) bool {
	c.mu.Lock()
	reachable := c.reachable
	c.mu.Unlock()
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-t.C:
	case <-reachable:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// interrupted returns how long it is until the next attempt to reach the host, and
// whether it is known to be out of reach, or not to know this client.
func (c *Client) interrupted() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pace.wait(time.Now()), !c.pace.since.IsZero()
}

// adopt takes over the outcome of a handshake.
func (c *Client) adopt(x *exchange) error {
	c.mu.Lock()
	if c.closed || c.leaving {
		c.mu.Unlock()
		return ErrClientClosed
	}
	isNew := c.identity.runtimeID != x.identity.runtimeID
	c.adoptLocked(x)
	warnings := c.warnings
	c.mu.Unlock()
	for _, w := range warnings {
		c.cfg.Logger.Warn("the host warns", keyReason, w)
	}
	if isNew {
		c.tell()
	}
	return nil
}

func (c *Client) adoptLocked(x *exchange) {
	x.identity.serial = c.identity.serial + 1
	c.adopted = time.Now()
	c.identity, c.ready, c.doubtful = x.identity, true, false
	c.version, c.warnings = x.resp.GetAppProtocolVersion(), boundedWarnings(x.resp.GetWarnings())
	c.choosing = x.resp.GetServerMetadata()[metadataAnyProvider] == metadataTrue
	c.plugins = map[string]*connectpluginv1.PluginInfo{}
	for _, p := range x.resp.GetPlugins() {
		c.plugins[p.GetName()] = p
	}
	c.local = x.local
	c.signs.lease, c.signs.shown = x.lease, time.Now()
	if x.state != nil && len(x.state.PeerCertificates) > 0 {
		c.hostCert = x.state.PeerCertificates[0]
	}
	if !c.identity.expires.IsZero() && !c.renewing {
		c.renewing = true
		c.tasks.Go(c.renew)
	}
	if callsOnly := len(c.cfg.Metadata.Provides) == 0; callsOnly && c.signs.lease > 0 && !c.signs.kept {
		c.signs.kept = true
		c.tasks.Go(c.stayAlive)
	}
}

// hostCertificate returns the certificate that the host showed in the last handshake,
// nil where it is not known.
func (c *Client) hostCertificate() *x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hostCert
}

// localAddr returns the address from which the host was reached in the last handshake,
// the zero Addr where that is not known.
func (c *Client) localAddr() netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.local
}

// tell wakes who keeps the plugin registered: something changed that concerns it.
func (c *Client) tell() {
	if c.changed != nil {
		c.changed()
	}
}

// assign takes over an identity that the host gave.
func (c *Client) assign(runtimeID, token, hostURL string, expires time.Time) error {
	if err := validateIdentity(runtimeID, token); err != nil {
		return err
	}
	var (
		u      *url.URL
		prefix string
	)
	if hostURL != "" {
		var err error
		if u, prefix, err = parseClientURL(hostURL, c.cfg.AllowInsecure); err != nil {
			return fmt.Errorf("host_url: %w", err)
		}
	}
	c.mu.Lock()
	if c.closed || c.leaving {
		c.mu.Unlock()
		return ErrClientClosed
	}
	if u == nil {
		if u, prefix = c.host, c.prefix; u == nil {
			c.mu.Unlock()
			return fmt.Errorf("host_url: is empty, and no host is known: %w", ErrClientNotConnected)
		}
	}
	moved := c.moveLocked(u, prefix)
	c.ready = true
	c.watchLocked()
	c.identity = identity{
		runtimeID: runtimeID, token: token, expires: expires, managed: true, serial: c.identity.serial + 1, home: originOf(u, prefix),
	}
	c.mu.Unlock()
	if moved && c.link != nil {
		c.link.Retire()
	}
	return nil
}

// renew keeps the identity alive until the client closes, and its connection good.
func (c *Client) renew() {
	failures := 0
	for {
		id := c.currentIdentity()
		wait := min(time.Duration(float64(time.Until(id.expires))*renewAfter), c.redialDue())
		if until, _ := c.interrupted(); failures > 0 {
			wait = retryIn(until, failures)
		}
		if !backoff.Wait(c.life, max(wait, renewFloor)) {
			return
		}
		c.refresh(time.Now())
		if now := c.currentIdentity(); now.serial != id.serial || now.managed {
			failures = 0
			continue
		}
		err := c.enrol(c.life, false)
		if err == nil {
			failures = 0
			continue
		}
		failures++
		c.notRenewed(failures, err)
	}
}

// notRenewed tells of a renewal that failed: of the first, and then less and less often, as of a host that is away.
func (c *Client) notRenewed(failures int, err error) {
	if failures&(failures-1) == 0 && !errors.Is(err, ErrClientClosed) {
		c.cfg.Logger.Warn("renewing the runtime token failed; trying again", keyError, err)
	}
}

// retryIn is how long a renewal waits that failed so often. Until is when the host is tried again that
// cannot be reached; one that answers may refuse as well.
func retryIn(until time.Duration, failures int) time.Duration {
	return max(until, backoff.Reconnect.After(failures))
}
