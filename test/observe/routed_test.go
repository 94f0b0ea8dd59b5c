package observe_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// protocols are those of the harness, as an observer is told them.
var protocols = map[string]connectplugin.Protocol{
	"connect": connectplugin.ProtocolConnect, "grpc": connectplugin.ProtocolGRPC, "grpc-web": connectplugin.ProtocolGRPCWeb,
}

func protocolOf(t *testing.T) connectplugin.Protocol {
	t.Helper()
	for part := range strings.SplitSeq(t.Name(), "/") {
		if p, ok := protocols[strings.ToLower(part)]; ok {
			return p
		}
	}
	t.Fatalf("no protocol in %q", t.Name())
	return ""
}

var procedureOf = map[string]string{"unary": echo.Unary, "client": echo.Client, "server": echo.Server, "bidi": echo.Bidi}

// failing is the service, and each of its procedures fails once it is asked to.
func failing(fail func() error) echo.Service {
	service := echo.Service{}
	service.Unary = func(_ context.Context, req *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
		if err := fail(); err != nil {
			return nil, err
		}
		return connect.NewResponse(req.Msg), nil
	}
	service.Client = func(_ context.Context, stream *connect.ClientStream[echo.Text]) (*connect.Response[echo.Text], error) {
		last := &echo.Text{}
		for stream.Receive() {
			last.Value += stream.Msg().GetValue()
		}
		return connect.NewResponse(last), fail()
	}
	service.Server = func(_ context.Context, req *connect.Request[echo.Text], stream *connect.ServerStream[echo.Text]) error {
		for range 3 {
			if err := stream.Send(req.Msg); err != nil {
				return err
			}
		}
		return fail()
	}
	service.Bidi = func(ctx context.Context, stream *connect.BidiStream[echo.Text, echo.Text]) error {
		if err := echo.SendBack(ctx, stream); err != nil {
			return err
		}
		return fail()
	}
	return service
}

// Every kind of call in every protocol, that succeeds and that fails, over the network.
func TestObserver_RoutedCalls(t *testing.T) {
	t.Parallel()

	var fails atomic.Bool

	o := &recorder{}
	r := echo.NewRig(t, failing(func() error {
		if fails.Load() {
			return connect.NewError(connect.CodeFailedPrecondition, errors.New("not now"))
		}
		return nil
	}).Handler(), observed(o))

	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		for _, failing := range []bool{false, true} {
			fails.Store(failing)

			out := echo.Kinds[kind](t.Context(), r.ToProvider(), opts, nil)
			if failing == (out.Err == nil) {
				t.Errorf("failing %t: %v", failing, out.Err)
			}

			started, call := one(t, o, &o.started), one(t, o, &o.routed)
			want := connectplugin.RoutedCall{
				Start:  started.Start,
				Caller: "caller", CallerRuntimeID: r.Caller.RuntimeID(),
				Provider: "provider", ProviderRuntimeID: r.Provider.Client.RuntimeID(),
				Type: echo.Type, Procedure: procedureOf[kind], Protocol: protocolOf(t), Code: hosttest.CodeOrZero(out.Err),
				RequestBytes: call.RequestBytes, ResponseBytes: call.ResponseBytes,
				Waited: call.Waited, Attempt: call.Attempt, Duration: call.Duration,
			}
			if call != want {
				t.Errorf("got  %+v\nwant %+v", call, want)
			}

			if call.RequestBytes < 4 || !failing && call.ResponseBytes < 4 || call.Waited <= 0 || call.Attempt <= 0 || call.Duration < call.Attempt {
				t.Errorf("sizes and times of %+v", call)
			}

			if started.Caller != want.Caller || started.Type != want.Type || started.Protocol != want.Protocol {
				t.Errorf("started %+v", started)
			}

			if ctx := take(t, o, &o.contexts, 1)[0]; ctx.Value(startedKey{}) != started.Start {
				t.Error("the end of the call got another context than its begin made")
			}
		}
	})
}

// Where nobody provides the type, and where the provider is gone, the caller's code is told,
// and where policy denies the call nothing but the refusal.
func TestObserver_CallsThatReachNobody(t *testing.T) {
	t.Parallel()

	o := &recorder{}
	r := echo.NewRig(t, echo.Service{}.Handler(), observed(o))
	stranger := r.Enrol(t, "stranger", hosttest.Requiring(echo.Type))

	r.Provider.Stop(t)

	out := echo.CallUnary(t.Context(), r.Route("-"), nil, nil)
	call := one(t, o, &o.routed)

	if code := hosttest.CodeOrZero(out.Err); code != connect.CodeUnavailable || call.Code != code || call.Provider != "" || call.Procedure != "" {
		t.Errorf("the caller got %v, the observer %+v", out.Err, call)
	}

	take(t, o, &o.started, 1)
	take(t, o, &o.refusals, 0)

	out = echo.CallUnary(t.Context(), echo.At(r.URL+"/services/echo/-", stranger.HTTPClient()), nil, nil)
	if code := hosttest.CodeOrZero(out.Err); code != connect.CodeNotFound {
		t.Errorf("denied with %v", out.Err)
	}

	want := connectplugin.RefusalEvent{
		Kind: connectplugin.AuditDenied, Where: connectplugin.RefusedRequest, SelfID: "stranger", RuntimeID: stranger.RuntimeID(),
	}
	if got := one(t, o, &o.refusals); got != want {
		t.Errorf("refusal %+v, want %+v", got, want)
	}

	if n := len(take(t, o, &o.started, 0)) + len(take(t, o, &o.routed, 0)); n != 0 {
		t.Errorf("%d events of a call that policy denies", n)
	}
}

// The observer's trace context goes to the provider in place of the caller's; one that it
// leaves alone, and none, stay what they are.
func TestObserver_TraceContext(t *testing.T) {
	t.Parallel()

	seen := &echo.Recorder{Next: echo.Service{}.Handler()}
	o := &recorder{}
	r := echo.NewRig(t, seen, observed(o))
	sent := connectplugin.TraceContext{Traceparent: "00-1-2-01", Tracestate: "a=1,b=2", Baggage: "k=v"}
	other := connectplugin.TraceContext{Traceparent: "00-1-3-01", Tracestate: "", Baggage: "k=v,l=w"}

	for name, c := range map[string]struct{ sent, made, want connectplugin.TraceContext }{
		"left alone": {sent, sent, sent},
		"replaced":   {sent, other, other},
		"taken off":  {sent, connectplugin.TraceContext{}, connectplugin.TraceContext{}},
		"none":       {},
		"begun here": {want: other, made: other},
		"bad":        {made: connectplugin.TraceContext{Traceparent: "00\r\nX-Plugin-Caller-Id: root"}},
	} {
		o.trace = func(connectplugin.CallStart) connectplugin.TraceContext { return c.made }
		header := http.Header{}

		for field, value := range map[string]string{"Traceparent": c.sent.Traceparent, "Tracestate": c.sent.Tracestate, "Baggage": c.sent.Baggage} {
			if value != "" {
				header[field] = strings.Split(value, ",") // several fields are one
			}
		}

		seen.Take()
		echo.Want(t, "unary", echo.CallUnary(t.Context(), r.ToProvider(), nil, header))
		take(t, o, &o.routed, 1)

		for _, got := range seen.Take() {
			if got.URL.Path != echo.Unary {
				continue
			}

			h := got.Header
			for field, want := range map[string]string{"Traceparent": c.want.Traceparent, "Tracestate": c.want.Tracestate, "Baggage": c.want.Baggage} {
				if value := strings.Join(h[field], ","); value != want {
					t.Errorf("%s: %s is %q, want %q", name, field, value, want)
				}
			}

			if id := h.Values("X-Plugin-Caller-Id"); len(id) != 1 || id[0] != r.Caller.RuntimeID() {
				t.Errorf("%s: the caller is %q", name, id)
			}
		}
	}
}

// Of several traceparents there is none, and of several observers each gets what the one before made.
func TestObserver_TraceContextOfSeveral(t *testing.T) {
	t.Parallel()

	first, second := &recorder{}, &recorder{}
	first.trace = func(c connectplugin.CallStart) connectplugin.TraceContext {
		c.Trace.Baggage += "first"
		return c.Trace
	}
	second.trace = func(c connectplugin.CallStart) connectplugin.TraceContext {
		c.Trace.Baggage += ",second"
		return c.Trace
	}
	seen := &echo.Recorder{Next: echo.Service{}.Handler()}
	r := echo.NewRig(t, seen, observed(connectplugin.JoinObservers(first, nil, second)))

	echo.Want(t, "unary", echo.CallUnary(t.Context(), r.ToProvider(), nil, http.Header{"Traceparent": {"00-1-2-01", "00-3-4-01"}}))

	if got := one(t, first, &first.started).Trace; got != (connectplugin.TraceContext{Baggage: "first"}) {
		t.Errorf("the first observer is told %+v", got)
	}

	if got := one(t, second, &second.started).Trace; got != (connectplugin.TraceContext{Baggage: "first,second"}) {
		t.Errorf("the second observer is told %+v", got)
	}

	for _, o := range []*recorder{first, second} {
		if call := one(t, o, &o.routed); call.Procedure != echo.Unary || take(t, o, &o.contexts, 1)[0].Value(startedKey{}) != call.Start {
			t.Errorf("routed %+v", call)
		}
	}

	for _, got := range seen.Take() {
		if got.URL.Path == echo.Unary && got.Header.Get("Baggage") != "first,second" {
			t.Errorf("the provider gets %q", got.Header.Get("Baggage"))
		}
	}
}

// However many procedures a caller makes up, and however many its accomplice answers, few have
// a name, and the honest ones keep theirs.
func TestObserver_ProceduresAreBounded(t *testing.T) {
	t.Parallel()

	o := &recorder{}
	r := echo.NewRig(t, echo.Service{}.Handler(), observed(o))
	echo.Want(t, "unary", echo.CallUnary(t.Context(), r.ToProvider(), nil, nil))

	call := func(path string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.ToProvider().BaseURL()+path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/proto")
		resp, err := r.Caller.HTTPClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return one(t, o, &o.routed).Procedure
	}

	take(t, o, &o.routed, 1)

	for i := range 20 {
		if name := call(fmt.Sprintf("%sMadeUp%d", echo.Base, i)); name != "" {
			t.Errorf("nobody answers %q", name)
		}
	}

	if name := call(echo.Unary); name != echo.Unary {
		t.Errorf("an honest call is %q", name)
	}

	r.Provider.Stop(t)
	r.Provider = r.Provide(t, "other", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/proto")
	}), nil)

	names := map[string]bool{}
	for i := range 200 {
		names[call(fmt.Sprintf("%sMadeUp%d", echo.Base, i))] = true
	}

	if len(names) != 64 { // with the honest one, and with none
		t.Errorf("%d names", len(names))
	}

	if name := call(echo.Unary); name != echo.Unary {
		t.Errorf("an honest call is %q afterwards", name)
	}
}

// What one call was leaves nothing in what is said of the next.
func TestObserver_EachCallIsItsOwn(t *testing.T) {
	t.Parallel()

	o := &recorder{}
	r := echo.NewRig(t, echo.Service{}.Handler(), observed(o))

	var first connectplugin.RoutedCall

	for i := range 8 {
		echo.Want(t, "unary", echo.CallUnary(t.Context(), r.ToProvider(), nil, nil))

		call := one(t, o, &o.routed)
		if i == 0 {
			first = call
		}

		if call.RequestBytes != first.RequestBytes || call.ResponseBytes != first.ResponseBytes || call.ResponseBytes == 0 {
			t.Errorf("call %d: %+v, the first %+v", i, call, first)
		}
	}
}
