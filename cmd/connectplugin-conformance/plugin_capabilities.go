package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// The capability of the kit's host, and one that it has, too, and policy gives to nobody.
const (
	typeCapability = "conformance.capability"
	typeNoRight    = "conformance.reserved"
)

// grantTime is short enough for a row to see two grants, and has two seconds between the time to ask for another and its end.
const grantTime = 6 * time.Second

// capability serves the subject's service as a capability of the host.
type capability struct {
	http.Handler

	kind string
}

// CapabilityType implements connectplugin.CapabilityHandler.
func (c capability) CapabilityType() string { return c.kind }

// Version implements connectplugin.CapabilityHandler.
func (capability) Version() string { return version }

func newBroker() *connectplugin.CapabilityBroker {
	b := connectplugin.NewCapabilityBroker("")
	for _, kind := range []string{typeCapability, typeNoRight} {
		b.RegisterCapability(capability{handler(), kind})
	}
	return b
}

// capabilities plays what the host lends to the subject.
func (p *pluginTable) capabilities(ctx context.Context) {
	for _, shape := range shapes {
		p.row(ctx, v2, shape, func(ctx context.Context) error {
			got, err := p.lend(ctx, typeCapability, methods[shape], fromValues[shape]...)
			return errors.Join(err, expect(got, fromWants[shape]))
		})
	}
	p.row(ctx, v2, "it is called with a grant, and learns who calls", func(ctx context.Context) error {
		got, err := p.lend(ctx, typeCapability, "Who", "")
		if err := errors.Join(err, expect(got, selfSubject)); err != nil {
			return err
		}
		_, err = p.stage.record.event(ctx, 0, connectplugin.AuditGranted)
		return err
	})
	p.row(ctx, v2, "one that policy does not give it is not found", func(ctx context.Context) error {
		got, err := p.lend(ctx, typeNoRight, methods[shapeUnary], aValue)
		return errors.Join(err, expect(got, connect.CodeNotFound.String()))
	})
	p.row(ctx, v2, "has another grant before one ends", p.renewsGrant)
	p.row(ctx, v2, "has another grant where one was revoked, and keeps its identity", p.revokedGrant)
}

// lend has the subject call a capability, and returns what came, or the code.
func (p *pluginTable) lend(ctx context.Context, kind, method string, values ...string) (came string, err error) {
	err = p.with(ctx, p.mine(), func(s *stub) error {
		got, err := s.order(ctx, order{Capability: kind, Method: method, Values: values})
		if err == nil {
			came = strings.Join(got.Values, ",") + got.Code
		}
		return err
	})
	return came, err
}

// lends reports whether the capability answers.
func (p *pluginTable) lends(ctx context.Context) error {
	got, err := p.lend(ctx, typeCapability, methods[shapeUnary], aValue)
	return errors.Join(err, expect(got, aValue))
}

// renewsGrant has the subject call until it has another grant. No call fails.
func (p *pluginTable) renewsGrant(ctx context.Context) error {
	mark := p.stage.record.mark()
	for {
		if err := p.lends(ctx); err != nil {
			return err
		}
		if _, ok := p.stage.record.latest(mark, connectplugin.AuditGranted); ok {
			return p.lends(ctx)
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return fmt.Errorf("no other grant came: %w", ctx.Err())
		}
	}
}

// revokedGrant takes the subject's grant away: one call may fail, and one has another grant.
func (p *pluginTable) revokedGrant(ctx context.Context) error {
	r := p.stage.record
	granted, ok := r.latest(0, connectplugin.AuditGranted)
	if !ok {
		return fmt.Errorf("%w: it has no grant", errWrongAnswer)
	}
	mark := r.mark()
	p.stage.broker.RevokeGrant(granted.Grant)
	if err := p.eventually(ctx, p.lends); err != nil {
		return err
	}
	if _, ok := r.latest(mark, connectplugin.AuditGranted); !ok {
		return fmt.Errorf("%w: it asked for no other grant", errWrongAnswer)
	}
	if e, ok := r.latest(mark, connectplugin.AuditIssued); ok {
		return fmt.Errorf("%w: it enrolled anew, as %s", errWrongAnswer, e.RuntimeID)
	}
	return nil
}

// latest is the last event of a kind beyond a mark.
func (r *record) latest(mark int, kind connectplugin.AuditKind) (found connectplugin.AuditEvent, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events[mark:] {
		if e.Kind == kind {
			found, ok = e, true
		}
	}
	return found, ok
}
