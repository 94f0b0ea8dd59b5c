package recovery_test

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// hasty is a context that states a deadline and does not end with it: what a call gets is
// then no matter of who is faster.
type hasty struct {
	context.Context

	deadline time.Time
}

// Deadline implements context.Context.
func (c hasty) Deadline() (time.Time, bool) { return c.deadline, true }

// inTime is longer than a call takes that is told in time, and shorter than what a client gives
// a connection.
const inTime = 20 * time.Second

// moment is the time that a hasty call states: longer than it takes on a busy machine until it waits.
const moment = time.Second

// inHaste calls with a context that states that a moment is left.
func inHaste(t *testing.T, call func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), inTime)
	defer cancel()
	return call(hasty{ctx, time.Now().Add(moment)})
}

// mute listens, takes connections and says nothing on them; it counts them.
func mute(t *testing.T, addr string) (l net.Listener, taken *atomic.Int64) {
	t.Helper()
	hosttest.Eventually(t, "the address is free", func() (free bool) {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	taken = new(atomic.Int64)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var conns []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			taken.Add(1)
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return l, taken
}

// A call whose time would pass while its client waits for a connection to the host, of which
// it knows that it was lost, is told that nobody is there, in every protocol.
func TestAudit_USE23_WhoWaitsForItsHostIsToldInTime(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	provide(t, host)
	c := caller(t, host)
	conn := service(t, c)
	host.Kill(t)
	l, taken := mute(t, host.Addr())
	t.Run("while it is away", func(t *testing.T) {
		for protocol, opt := range protocols() {
			t.Run(protocol, func(t *testing.T) {
				t.Parallel()
				client := connect.NewClient[text, text](c.HTTPClient(), host.URL+"/services/"+echoType+"/-"+sayOnce, opt)
				hosttest.Eventually(t, "the client waits for who says nothing", func() bool {
					err := inHaste(t, func(ctx context.Context) error {
						_, err := client.CallUnary(ctx, connect.NewRequest(wrapperspb.String("x")))
						return err
					})
					if connect.CodeOf(err) != connect.CodeUnavailable {
						t.Fatal(err)
					}
					return taken.Load() > 0
				})
			})
		}
	})
	_ = l.Close()
	host.Restart(t)
	hosttest.Eventually(t, "calls go through", func() bool { return once(t.Context(), conn) == nil })
}

// A call whose time would pass while its client's identity is being renewed is told that nobody is there.
func TestAudit_USE23_WhoWaitsForAnIdentityIsToldInTime(t *testing.T) {
	t.Parallel()
	const procedure = "/services/" + echoType + "/-" + sayOnce
	host := hosttest.StartHostileHost(t, nil)
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
	c := host.Client(t, nil)
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	renews, end := make(chan struct{}, 1), make(chan struct{})
	defer close(end)
	host.Answer(hosttest.HandshakePath, func(http.ResponseWriter, *http.Request) { renews <- struct{}{}; <-end })
	host.Answer(procedure, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", "Bearer")
		w.WriteHeader(http.StatusUnauthorized)
	})
	client := connect.NewClient[text, text](c.HTTPClient(), host.URL+procedure)
	for range 2 { // who notices that the identity was lost, and who knows it
		err := inHaste(t, func(ctx context.Context) error {
			_, err := client.CallUnary(ctx, connect.NewRequest(wrapperspb.String("x")))
			return err
		})
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%v", err)
		}
	}
	hosttest.Arrival(t, renews)
}

// A call whose time would pass while the host waits for a connection to its provider is told in time
// that nobody is there.
func TestAudit_USE22_WhoWaitsForAProviderIsToldInTime(t *testing.T) {
	t.Parallel()
	l, taken := mute(t, "127.0.0.1:0")
	host := start(t, func(c *connectplugin.ServeConfig) {
		c.Policy.Plugins["mute"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) {
			p.Provides, p.Endpoint, p.AllowOwnAddress = []string{echoType}, "https://"+l.Addr().String(), false
		})
		c.Limits.DialTimeout = hosttest.Wait
	})
	if _, err := hosttest.Register(t, host.Enrol(t, "mute", hosttest.Providing(echoType)), echoType, "1.0.0"); err != nil {
		t.Fatal(err)
	}
	c := caller(t, host)
	conn := service(t, c)
	t.Run("while it says nothing", func(t *testing.T) {
		for protocol, opt := range protocols() {
			t.Run(protocol, func(t *testing.T) {
				t.Parallel()
				err := inHaste(t, func(ctx context.Context) error { return once(ctx, conn, opt) })
				if connect.CodeOf(err) != connect.CodeUnavailable {
					t.Error(err)
				}
			})
		}
	})
	if taken.Load() == 0 {
		t.Error("nobody was dialled")
	}
}
