package recovery_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

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

// inHaste calls with a context that states that a moment is left.
func inHaste(t *testing.T, call func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), inTime)
	defer cancel()
	return call(hasty{ctx, time.Now().Add(100 * time.Millisecond)})
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
