package router_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// deadlyListener can cut every connection that it accepted.
type deadlyListener struct {
	net.Listener

	mu    sync.Mutex
	conns []net.Conn
}

func (l *deadlyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

// kill cuts the connections, as the death of the process would.
func (l *deadlyListener) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	l.conns = nil
}

// A provider that dies in the middle of a call ends it with a clear code and not
// as if it were complete.
func TestAudit_H36_DeathOfTheProviderIsNoCleanEnd(t *testing.T) {
	t.Parallel()
	// Each death has a provider of its own: one whose connections break again and again
	// before it ever answered is dialled with growing waits (ATK-07).
	deadly := func(t *testing.T) (rig *echo.Rig, begun chan context.Context, kill func()) {
		t.Helper()
		service, begun := hangingUntilTheEnd(t)
		listener := &deadlyListener{Listener: hosttest.Listen(t)}
		rig = &echo.Rig{Host: hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))}
		rig.Provider = rig.Provide(t, "provider", service.Handler(), func(c *connectplugin.PluginServerConfig) { c.Listener = listener })
		rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
		return rig, begun, listener.kill
	}
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		rig, begun, kill := deadly(t)
		ended, at := hangsAt(t.Context(), t, rig.ToProvider(), begun, kind, opts)
		kill()
		wantEnd(t, ended, at, connect.CodeUnavailable)
	})
	eachFlow(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		rig, begun, kill := deadly(t)
		stream := flows(t, rig.ToProvider(), begun, kind, opts)
		kill()
		stream.wantEnd(t, connect.CodeUnavailable)
	})
}

// hanging sends one message, where it is a stream, and hangs.
func hanging(hang func(context.Context) error) echo.Service {
	return echo.Service{
		Unary: func(ctx context.Context, _ *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
			return nil, hang(ctx)
		},
		Client: func(ctx context.Context, stream *connect.ClientStream[echo.Text]) (*connect.Response[echo.Text], error) {
			stream.Receive()
			return nil, hang(ctx)
		},
		Server: func(ctx context.Context, req *connect.Request[echo.Text], stream *connect.ServerStream[echo.Text]) error {
			if err := stream.Send(req.Msg); err != nil {
				return err
			}
			return hang(ctx)
		},
		Bidi: func(ctx context.Context, stream *connect.BidiStream[echo.Text, echo.Text]) error {
			msg, err := stream.Receive()
			if err == nil {
				err = stream.Send(msg)
			}
			if err != nil {
				return err
			}
			return hang(ctx)
		},
	}
}

// endsRig is a rig whose calls hang until something ends them.
type endsRig struct {
	*echo.Rig

	begun chan context.Context // of a call at the provider
}

func newEndsRig(t *testing.T) *endsRig {
	t.Helper()
	service, begun := hangingUntilTheEnd(t)
	r := &endsRig{Rig: &echo.Rig{Host: hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))}, begun: begun}
	r.Provider = r.Provide(t, "provider", service.Handler(), func(c *connectplugin.PluginServerConfig) {
		c.HealthInterval = 100 * time.Millisecond // so it learns soon that its identity ended
	})
	r.Caller = r.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	return r
}

// hangingUntilTheEnd is a service whose calls hang until their context or the test
// ends. The channel gets the context of each.
func hangingUntilTheEnd(t *testing.T) (service echo.Service, begun chan context.Context) {
	t.Helper()
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	begun = make(chan context.Context)
	return hanging(func(ctx context.Context) error {
		select {
		case begun <- ctx:
		case <-ctx.Done():
		case <-stop:
		}
		select {
		case <-ctx.Done():
		case <-stop:
		}
		return ctx.Err()
	}), begun
}

// begin begins a call to a provider, and returns when it hangs there.
func (r *endsRig) begin(ctx context.Context, t *testing.T, kind string, opts []connect.ClientOption) (ended <-chan echo.Outcome, at context.Context) {
	t.Helper()
	return hangsAt(ctx, t, r.ToProvider(), r.begun, kind, opts)
}

// hangsAt begins a call and returns when it hangs at the provider, with the context
// that it has there. A call that ends before comes back without one.
func hangsAt(ctx context.Context, t *testing.T, to echo.Reachable, begun <-chan context.Context, kind string, opts []connect.ClientOption) (<-chan echo.Outcome, context.Context) {
	t.Helper()
	ended := make(chan echo.Outcome, 1)
	go func() { ended <- echo.Kinds[kind](ctx, to, opts, nil) }()
	select {
	case at := <-begun:
		return ended, at
	case out := <-ended:
		_, limited := ctx.Deadline() // half of that time is for the provider's connection
		if ctx.Err() == nil && (!limited || connect.CodeOf(out.Err) != connect.CodeUnavailable) {
			t.Fatalf("the call ended before it began: %v", out.Err)
		}
		ended <- out
	case <-time.After(hosttest.Wait):
		t.Fatal("the call did not begin")
	}
	return ended, nil
}

// flowing is a stream of which the caller has the first message.
type flowing struct {
	receive func() error
	at      context.Context // of the call at the provider
}

// flows begins a stream at a provider that hangs after its first message, and returns
// when the caller has that message.
func flows(t *testing.T, to echo.Reachable, begun <-chan context.Context, kind string, opts []connect.ClientOption) flowing {
	t.Helper()
	var f flowing
	if kind == "server" {
		stream, err := echo.NewClient(to, echo.Server, opts...).CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("first")))
		if err != nil || !stream.Receive() {
			t.Fatalf("the stream did not begin: %v, %v", err, stream.Err())
		}
		t.Cleanup(func() { _ = stream.Close() })
		f.receive = func() error { stream.Receive(); return stream.Err() }
	} else {
		stream := echo.NewClient(to, echo.Bidi, opts...).CallBidiStream(t.Context())
		echo.SendWant(t, stream, "first", "first")
		t.Cleanup(func() { _ = stream.CloseRequest(); _ = stream.CloseResponse() })
		f.receive = func() error { _, err := stream.Receive(); return err }
	}
	f.at = hosttest.Arrival(t, begun)
	return f
}

// wantEnd fails the test unless the stream ends with the code, at the provider too.
func (f flowing) wantEnd(t *testing.T, code connect.Code) {
	t.Helper()
	end := make(chan error, 1)
	go func() { end <- f.receive() }()
	if err := hosttest.Arrival(t, end); connect.CodeOf(err) != code {
		t.Errorf("the stream ends with %v, want %v", err, code)
	}
	hosttest.Arrival(t, f.at.Done())
}

// eachFlow runs a test with every kind of stream that sends something before its end,
// in every protocol, one after another.
func eachFlow(t *testing.T, f func(t *testing.T, kind string, opts []connect.ClientOption)) {
	t.Helper()
	for protocol, opts := range hosttest.Protocols {
		for _, kind := range []string{"server", "bidi"} {
			t.Run("flowing/"+protocol+"/"+kind, func(t *testing.T) { f(t, kind, opts) })
		}
	}
}

// wantEnd fails the test unless a call ends with the code, at the provider too.
func wantEnd(t *testing.T, ended <-chan echo.Outcome, at context.Context, code connect.Code) { //nolint:revive // the context is a result
	t.Helper()
	if out := hosttest.Arrival(t, ended); connect.CodeOf(out.Err) != code {
		t.Errorf("the caller sees %v %v, want %v", out.Messages, out.Err, code)
	}
	hosttest.Arrival(t, at.Done())
}

// The end of the caller's identity ends its calls with Unauthenticated, and the
// provider learns of it.
func TestAudit_PROTO31_EndOfTheCallerEndsItsRoutedCalls(t *testing.T) {
	t.Parallel()
	rig := newEndsRig(t)
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
		ended, at := rig.begin(t.Context(), t, kind, opts)
		if !rig.Revoke(rig.Caller.RuntimeID()) {
			t.Fatal("no such identity")
		}
		wantEnd(t, ended, at, connect.CodeUnauthenticated)
	})
	eachFlow(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
		stream := flows(t, rig.ToProvider(), rig.begun, kind, opts)
		rig.Revoke(rig.Caller.RuntimeID())
		stream.wantEnd(t, connect.CodeUnauthenticated)
	})
	rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	ctx, cancel := context.WithCancel(t.Context())
	ended, at := rig.begin(ctx, t, "bidi", nil)
	cancel() // an honest one
	wantEnd(t, ended, at, connect.CodeCanceled)
}

// The end of the provider's identity ends the calls towards it with Unavailable,
// and those of others go on.
func TestAudit_PROTO31_EndOfTheProviderEndsCallsTowardsIt(t *testing.T) {
	t.Parallel()
	rig := newEndsRig(t)
	bystander := rig.Provide(t, "other", echo.Service{}.Handler(), nil)
	untouched := echo.NewClient(rig.Route(bystander.Client.RuntimeID()), echo.Bidi).CallBidiStream(t.Context())
	echo.SendWant(t, untouched, "before", "before")
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		ended, at := rig.begin(t.Context(), t, kind, opts)
		runtimeID := rig.Provider.Client.RuntimeID()
		if !rig.Revoke(runtimeID) {
			t.Fatal("no such identity")
		}
		wantEnd(t, ended, at, connect.CodeUnavailable)
		if out := echo.CallUnary(t.Context(), rig.Route(runtimeID), opts, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
			t.Errorf("a call afterwards: %v", out.Err)
		}
		rig.awaitAnother(t, runtimeID)
	})
	eachFlow(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		runtimeID := rig.Provider.Client.RuntimeID()
		stream := flows(t, rig.ToProvider(), rig.begun, kind, opts)
		rig.Revoke(runtimeID)
		stream.wantEnd(t, connect.CodeUnavailable)
		rig.awaitAnother(t, runtimeID)
	})
	echo.SendWant(t, untouched, "after", "after")
	_ = untouched.CloseRequest()
	_ = untouched.CloseResponse()
}

// awaitAnother waits until the plugin has enrolled again, with a new identity.
func (r *endsRig) awaitAnother(t *testing.T, runtimeID string) {
	t.Helper()
	hosttest.Eventually(t, "the provider is back", func() bool {
		id := r.Provider.Client.RuntimeID()
		return id != runtimeID && r.Registered(echo.Type, id)
	})
}

// The caller's deadline, and that it gives up, reach the provider.
func TestAudit_H36_DeadlinesAndCancellationTravel(t *testing.T) {
	t.Parallel()
	rig := newEndsRig(t)
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		deadlineTravels(t, rig, kind, opts)
		ctx, giveUp := context.WithCancel(t.Context())
		ended, at := rig.begin(ctx, t, kind, opts)
		// On a slow machine a call with a deadline may come only now.
		for _, late := at.Deadline(); late; _, late = at.Deadline() {
			select {
			case at = <-rig.begun:
			case <-time.After(hosttest.Wait):
				t.Fatal("the provider has a deadline that nobody set")
			}
		}
		giveUp()
		wantEnd(t, ended, at, connect.CodeCanceled)
	})
}

// deadlineTravels makes a call whose deadline is as long as the machine needs to
// bring it to the provider.
func deadlineTravels(t *testing.T, rig *endsRig, kind string, opts []connect.ClientOption) {
	t.Helper()
	for limit := 200 * time.Millisecond; limit < hosttest.Wait; limit *= 4 {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		t.Cleanup(cancel)
		ended, at := rig.begin(ctx, t, kind, opts)
		if at == nil {
			continue
		}
		deadline, ok := at.Deadline()
		if ok && deadline.Before(begun) {
			continue // that of the attempt before, which came late
		}
		// The wire states what is left of it, in whole units, when the call leaves.
		if !ok || deadline.After(time.Now().Add(limit)) {
			t.Errorf("the provider's deadline is %v (%v), that of the caller %v", deadline, ok, begun.Add(limit))
		}
		wantEnd(t, ended, at, connect.CodeDeadlineExceeded)
		return
	}
	t.Error("no call came through in time")
}

// A caller that gives up an open stream ends it at the provider too, while it could still
// send. (A caller on net/http alone cannot: its transport looks at no context while the
// body of the request waits.)
func TestAudit_H36_CancellationOfAnOpenStreamTravels(t *testing.T) {
	t.Parallel()
	rig := newEndsRig(t)
	for protocol, opts := range hosttest.Protocols {
		t.Run(protocol, func(t *testing.T) {
			ctx, giveUp := context.WithCancel(t.Context())
			defer giveUp()
			stream := echo.NewClient(rig.ToProvider(), echo.Bidi, opts...).CallBidiStream(ctx)
			echo.SendWant(t, stream, "first", "first")
			at := hosttest.Arrival(t, rig.begun)
			giveUp()
			hosttest.Arrival(t, at.Done())
			if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeCanceled {
				t.Errorf("the caller sees %v", err)
			}
		})
	}
}
