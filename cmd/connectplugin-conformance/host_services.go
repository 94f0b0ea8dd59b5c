package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// pair is a provider and a caller of the kit's.
type pair struct {
	// Fixed at creation.
	caller *connectplugin.Client
	conn   *connectplugin.ServiceConn
	stop   context.CancelFunc
	gone   chan struct{}

	provider *connectplugin.Client
	health   atomic.Int32
	asked    atomic.Bool                 // for its health
	seen     atomic.Pointer[http.Header] // of the last call
}

func (h *hostTable) newPair(ctx context.Context) (*pair, error) {
	p := &pair{gone: make(chan struct{})}
	p.health.Store(int32(healthy))
	provider, err := h.client(selfProvider)
	if err != nil {
		return nil, err
	}
	caller, err := h.client(selfCaller)
	if err != nil {
		return nil, err
	}
	caller.Metadata.Requires = []connectplugin.ServiceDependency{{Type: typeSubject}, {Type: typeNobody}}
	if p.caller, err = connectplugin.NewClient(caller); err != nil {
		return nil, fmt.Errorf("caller: %w", err)
	}
	if err := p.caller.Connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("caller: %w", err), p.caller.Close())
	}
	if err := p.serve(ctx, provider); err != nil {
		return nil, errors.Join(err, p.caller.Close())
	}
	if p.conn, err = p.caller.Service(ctx, typeSubject, ""); err != nil {
		p.close()
		return nil, fmt.Errorf("service: %w", err)
	}
	return p, nil
}

func (p *pair) serve(ctx context.Context, client connectplugin.ClientConfig) error {
	connected, ended := make(chan *connectplugin.Client, 1), make(chan error, 1)
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(p.gone)
		ended <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:   client,
			Services: []connectplugin.PluginService{{Type: typeSubject, Version: version, Path: base, Handler: p.noted(handler())}},
			Health: func() (connectpluginv1.HealthState, string) {
				p.asked.Store(true)
				return connectpluginv1.HealthState(p.health.Load()), ""
			},
			HealthInterval: time.Hour, // what asks more often is the host
			OnConnected: func(_ context.Context, c *connectplugin.Client) error {
				connected <- c
				return nil
			},
		})
	}()
	select {
	case p.provider = <-connected:
		return nil
	case err := <-ended:
		p.stop()
		return fmt.Errorf("provider: %w", err)
	}
}

// noted keeps the header fields of calls.
func (p *pair) noted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := r.Header.Clone()
		p.seen.Store(&header)
		next.ServeHTTP(w, r)
	})
}

func (p *pair) close() {
	if p.conn != nil {
		p.conn.Close()
	}
	p.stop()
	<-p.gone
	_ = p.caller.Close()
}

func (p *pair) stub(options ...connect.ClientOption) *stub {
	return &stub{client: p.conn.HTTPClient(), base: p.conn.BaseURL(), options: options}
}

// comes waits until calls reach the provider.
func (p *pair) comes(ctx context.Context) error {
	for {
		_, err := p.stub().unary(ctx, methods[shapeUnary], "there")
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(tryAgain):
		case <-ctx.Done():
			return err
		}
	}
}

// services plays a provider and a caller.
func (h *hostTable) services(ctx context.Context) {
	p, err := h.newPair(ctx)
	if err != nil {
		h.note("a provider and a caller", err)
		return
	}
	defer p.close()
	if !h.row(ctx, v1, "a provider registers and is called", p.comes) {
		return
	}
	h.calls(ctx, p)
	h.head("Watches")
	h.watches(ctx, p)
	h.head("A busy day")
	h.busy(ctx, p)
	h.head("Health, and ends")
	h.row(ctx, v1, "asks the provider for its health", func(ctx context.Context) error {
		p.asked.Store(false)
		for !p.asked.Load() {
			select {
			case <-time.After(tryAgain):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	h.row(ctx, v1, "after its loss nobody has an identity, and all come back", func(ctx context.Context) error {
		return h.loss(ctx, p)
	})
}

func (h *hostTable) loss(ctx context.Context, p *pair) error {
	before := p.provider.RuntimeID()
	h.process.kill()
	if err := h.launch(); err != nil {
		return err
	}
	if err := errors.Join(h.listens(ctx), p.comes(ctx)); err != nil {
		return err
	}
	if p.provider.RuntimeID() == before {
		return fmt.Errorf("%w: the provider kept %s", errWrongAnswer, before)
	}
	return nil
}

func (h *hostTable) calls(ctx context.Context, p *pair) {
	for _, protocol := range protocols {
		for _, shape := range shapes {
			h.row(ctx, v1, protocol.name+", "+shape, func(ctx context.Context) error {
				return p.stub(protocol.options...).shape(ctx, shape)
			})
		}
		h.row(ctx, v1, protocol.name+", an error keeps its code and its text", func(ctx context.Context) error {
			_, err := p.stub(protocol.options...).unary(ctx, "Fail", "9 as asked")
			return expect(describe(err), "failed_precondition: as asked")
		})
	}
	h.row(ctx, v1, "the provider learns who calls, whatever the caller says, and no credentials", func(ctx context.Context) error {
		forged := connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
				r.Header().Set("X-Plugin-Caller-Self-Id", "somebody")
				r.Header().Set("X-Plugin-Caller-Id", "somebody")
				return next(ctx, r)
			}
		}))
		got, err := p.stub(forged).unary(ctx, "Who", "")
		if err != nil {
			return err
		}
		seen := *p.seen.Load()
		return errors.Join(expect(got, selfCaller), expect(seen.Get("X-Plugin-Caller-Id"), p.caller.RuntimeID()),
			expect(seen.Get("Authorization")+seen.Get(headerRuntimeID), ""))
	})
	h.row(ctx, v1, "no call without an identity, nor to a type that the caller did not declare", func(ctx context.Context) error {
		return h.as(ctx, selfCaller, func(w *wire) error { return h.strangers(ctx, w, p) })
	})
}

// strangers calls the provider's route with the wrong rights.
func (h *hostTable) strangers(ctx context.Context, w *wire, p *pair) error {
	route := w.url + "/services/" + typeSubject + "/" + p.provider.RuntimeID()
	_, without := (&stub{client: w.client, base: route}).unary(ctx, "Echo", "")
	if h.first { // in which nobody declares anything
		return wants(without, connect.CodeUnauthenticated)
	}
	m, err := w.handshake(ctx, &asks{edit: func(m *connectpluginv1.HandshakeRequest) { m.Requires = nil }})
	if err != nil {
		return err
	}
	options := connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			maps.Copy(r.Header(), credentials(m))
			return next(ctx, r)
		}
	}))
	_, undeclared := (&stub{client: w.client, base: route, options: []connect.ClientOption{options}}).unary(ctx, "Echo", "")
	return errors.Join(wants(without, connect.CodeUnauthenticated), wants(undeclared, connect.CodeNotFound))
}

// tuned is a watch of the kit's.
type tuned struct {
	stream *connect.ServerStreamForClient[connectpluginv1.WatchServiceEvent]
}

func (w *wire) watch(ctx context.Context, m *connectpluginv1.WatchServiceRequest, header http.Header) (*tuned, error) {
	client := connectpluginv1connect.NewServiceRegistryClient(w.client, w.url, w.options...)
	stream, err := client.WatchService(ctx, withHeader(m, header))
	if err != nil {
		return nil, err
	}
	return &tuned{stream: stream}, nil
}

func (t *tuned) next() (*connectpluginv1.WatchServiceEvent, error) {
	if !t.stream.Receive() {
		return nil, orNone(t.stream.Err())
	}
	return t.stream.Msg(), nil
}

// watches plays the numbers of a watch.
func (h *hostTable) watches(ctx context.Context, p *pair) {
	h.row(ctx, v1, "begins with the state, and tells of each change", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error { return p.tells(ctx, w, one, false) })
	})
	h.row(ctx, v2, "numbers the changes", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error { return p.tells(ctx, w, one, true) })
	})
	h.row(ctx, v2, "resumes after the last number, and resyncs where that is not known", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error { return p.resumes(ctx, w, one) })
	})
	h.row(ctx, v1, "refuses a type that the caller did not declare", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error {
			t, err := w.watch(ctx, &connectpluginv1.WatchServiceRequest{ServiceType: typeForbidden}, one)
			if err == nil {
				_, err = t.next()
			}
			return wants(err, connect.CodeNotFound)
		})
	})
	h.row(ctx, v2, "ends with the identity", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error {
			t, err := w.watch(ctx, &connectpluginv1.WatchServiceRequest{ServiceType: typeSubject}, one)
			if err != nil {
				return err
			}
			if _, err := t.next(); err != nil {
				return err
			}
			leave := &connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, Leaving: true}
			if err := w.report(ctx, leave, one); err != nil {
				return err
			}
			_, err = t.next()
			return wants(err, connect.CodeUnauthenticated)
		})
	})
}

var statesOf = map[connectpluginv1.HealthState]connectpluginv1.ServiceState{
	healthy:  connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE,
	degraded: connectpluginv1.ServiceState_SERVICE_STATE_DEGRADED,
	connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY: connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE,
}

func (p *pair) report(ctx context.Context, state connectpluginv1.HealthState) error {
	p.health.Store(int32(state))
	if err := p.provider.ReportHealth(ctx, state, "as a row asks", nil); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// until reads events up to one with a state. The host may have asked the provider itself at the moment of
// a change, and tells then what it saw, too. Where before is not nil, each number follows the one before.
func (t *tuned) until(state connectpluginv1.HealthState, before *connectpluginv1.WatchServiceEvent) (*connectpluginv1.WatchServiceEvent, error) {
	for {
		e, err := t.next()
		if err != nil {
			return nil, fmt.Errorf("%w: waiting for %s", err, statesOf[state])
		}
		if before != nil {
			if want := before.GetSequence() + 1; e.GetSequence() != want {
				return nil, fmt.Errorf("%w: number %d instead of %d", errWrongAnswer, e.GetSequence(), want)
			}
			before = e
		}
		if e.GetState() == statesOf[state] {
			return e, nil
		}
	}
}

// change has the provider report a state, and waits until a watch tells of it.
func (p *pair) change(ctx context.Context, t *tuned, state connectpluginv1.HealthState, before *connectpluginv1.WatchServiceEvent) (*connectpluginv1.WatchServiceEvent, error) {
	if err := p.report(ctx, state); err != nil {
		return nil, err
	}
	return t.until(state, before)
}

// tells has the provider change, and wants each change, with the next number where it is numbered.
func (p *pair) tells(ctx context.Context, w *wire, header http.Header, numbered bool) error {
	t, err := w.watch(ctx, &connectpluginv1.WatchServiceRequest{ServiceType: typeSubject}, header)
	if err != nil {
		return err
	}
	last, err := t.until(healthy, nil)
	if err != nil {
		return err
	}
	route := "/services/" + typeSubject + "/" + last.GetEndpoint().GetProviderId()
	if err := expect(strings.TrimSuffix(last.GetEndpoint().GetEndpointUrl(), "/"), route); err != nil {
		return err
	}
	for _, state := range []connectpluginv1.HealthState{degraded, connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, healthy} {
		var before *connectpluginv1.WatchServiceEvent
		if numbered {
			before = last
		}
		if last, err = p.change(ctx, t, state, before); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) resumes(ctx context.Context, w *wire, header http.Header) error {
	open := func(after uint64, epoch string) (*connectpluginv1.WatchServiceEvent, error) {
		t, err := w.watch(ctx, &connectpluginv1.WatchServiceRequest{ServiceType: typeSubject, ResumeAfter: after, Epoch: epoch}, header)
		if err != nil {
			return nil, err
		}
		return t.next()
	}
	t, err := w.watch(ctx, &connectpluginv1.WatchServiceRequest{ServiceType: typeSubject}, header)
	if err != nil {
		return err
	}
	last, err := t.until(healthy, nil)
	if err != nil {
		return err
	}
	if _, err := p.change(ctx, t, degraded, last); err != nil {
		return err
	}
	latest, err := p.change(ctx, t, healthy, nil)
	if err != nil {
		return err
	}
	resumed, err := open(last.GetSequence(), last.GetEpoch())
	if err != nil {
		return err
	}
	foreign, err := open(last.GetSequence(), "another epoch")
	if err != nil {
		return err
	}
	said := func(e *connectpluginv1.WatchServiceEvent) string {
		return fmt.Sprintf("%s %d, resync %t", e.GetState(), e.GetSequence(), e.GetResync())
	}
	return errors.Join(
		expect(said(resumed), fmt.Sprintf("%s %d, resync false", statesOf[degraded], last.GetSequence()+1)),
		expect(said(foreign), fmt.Sprintf("%s %d, resync true", statesOf[healthy], latest.GetSequence())))
}
