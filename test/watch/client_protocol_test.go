package watch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// scripted is a registry that gives one stream after the other as a test says
// and notes what it is asked for.
type scripted struct {
	connectpluginv1connect.UnimplementedServiceRegistryHandler

	mu      sync.Mutex
	streams []scriptedStream
	asked   []string
}

// scriptedStream is what a stream says and how it ends; a nil end is a clean one.
type scriptedStream struct {
	events []*connectpluginv1.WatchServiceEvent
	end    error
}

func (s *scripted) WatchService(_ context.Context, req *connect.Request[connectpluginv1.WatchServiceRequest], stream *connect.ServerStream[connectpluginv1.WatchServiceEvent]) error {
	s.mu.Lock()
	s.asked = append(s.asked, fmt.Sprintf("%s %d", req.Msg.GetEpoch(), req.Msg.GetResumeAfter()))
	next := scriptedStream{end: connect.NewError(connect.CodeNotFound, errors.New("not available"))}
	if len(s.streams) > 0 {
		next, s.streams = s.streams[0], s.streams[1:]
	}
	s.mu.Unlock()
	for _, e := range next.events {
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	return next.end
}

// watchScript follows a type at a host that plays a script, until the watch ends,
// and returns what was yielded and why it ended.
func watchScript(t *testing.T, s *scripted) (got []*connectplugin.ServiceEvent, end error) {
	t.Helper()
	h := hosttest.StartHostileHost(t, nil)
	h.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
	_, handler := connectpluginv1connect.NewServiceRegistryHandler(s)
	h.Answer(connectpluginv1connect.ServiceRegistryWatchServiceProcedure, handler.ServeHTTP)
	c := h.Client(t, nil)
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
	defer cancel()
	for e, err := range c.WatchService(ctx, "a") {
		if err != nil {
			return got, err
		}
		got = append(got, e)
	}
	return got, nil
}

// A client sends where it stands, drops what it has, and takes everything else as
// it comes, whatever the numbers do.
func TestWatchProtocol_ClientResumes(t *testing.T) {
	t.Parallel()
	event := func(state connectpluginv1.ServiceState, sequence uint64, epoch string, missed ...uint64) *connectpluginv1.WatchServiceEvent {
		e := &connectpluginv1.WatchServiceEvent{ServiceType: "a", State: state, Sequence: sequence, Epoch: epoch}
		for _, n := range missed {
			e.Resync, e.Missed = true, n
		}
		return e
	}
	s := &scripted{streams: []scriptedStream{
		{[]*connectpluginv1.WatchServiceEvent{event(hosttest.Unavailable, 0, "E"), event(hosttest.Available, 1, "E")}, connect.NewError(connect.CodeUnavailable, io.EOF)},
		{[]*connectpluginv1.WatchServiceEvent{event(hosttest.Available, 1, "E"), event(hosttest.Degraded, 2, "E"), event(hosttest.Degraded, 2, "E")}, connect.NewError(connect.CodeResourceExhausted, io.EOF)},
		{nil, connect.NewError(connect.CodeInternal, io.EOF)},
		{[]*connectpluginv1.WatchServiceEvent{event(hosttest.Available, 9, "E", 6)}, nil},
		{[]*connectpluginv1.WatchServiceEvent{event(hosttest.Unavailable, 3, "F", 0), event(hosttest.Available, 4, "F")}, connect.NewError(connect.CodeUnauthenticated, io.EOF)},
		{[]*connectpluginv1.WatchServiceEvent{event(hosttest.Degraded, 5, "F")}, connect.NewError(connect.CodeCanceled, io.EOF)},
	}}
	events, end := watchScript(t, s)
	if connect.CodeOf(end) != connect.CodeNotFound {
		t.Errorf("the watch ended with %v", end)
	}
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%v %d %t %d", e.State, e.Sequence, e.Resync, e.Missed))
	}
	if want := []string{" 0", "E 1", "E 2", "E 2", "E 9", "F 4", "F 5"}; !slices.Equal(s.asked, want) {
		t.Errorf("asked to resume after %q, want %q", s.asked, want)
	}
	want := []string{
		fmt.Sprint(hosttest.Unavailable, " 0 false 0"), fmt.Sprint(hosttest.Available, " 1 false 0"), fmt.Sprint(hosttest.Degraded, " 2 false 0"),
		fmt.Sprint(hosttest.Available, " 9 true 6"), fmt.Sprint(hosttest.Unavailable, " 3 true 0"), fmt.Sprint(hosttest.Available, " 4 false 0"), fmt.Sprint(hosttest.Degraded, " 5 false 0"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("yielded %q, want %q", got, want)
	}
}

// A client gives up where going on is of no use, at once and with the reason.
func TestWatchProtocol_ClientGivesUp(t *testing.T) {
	t.Parallel()
	for _, code := range []connect.Code{connect.CodeNotFound, connect.CodeInvalidArgument, connect.CodePermissionDenied, connect.CodeUnimplemented} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			s := &scripted{streams: []scriptedStream{{nil, connect.NewError(code, io.EOF)}}}
			got, end := watchScript(t, s)
			if connect.CodeOf(end) != code || len(got) > 0 || len(s.asked) != 1 {
				t.Errorf("after %v, asked %d times: %v", got, len(s.asked), end)
			}
		})
	}
	t.Run("no new identity", func(t *testing.T) {
		t.Parallel()
		h := hosttest.StartHostileHost(t, nil)
		h.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
		s := &scripted{streams: []scriptedStream{{nil, connect.NewError(connect.CodeUnauthenticated, io.EOF)}}}
		_, handler := connectpluginv1connect.NewServiceRegistryHandler(s)
		h.Answer(connectpluginv1connect.ServiceRegistryWatchServiceProcedure, handler.ServeHTTP)
		c := h.Client(t, nil)
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.Answer(hosttest.HandshakePath, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"code":"unauthenticated"}`))
		})
		ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
		defer cancel()
		var end error
		for _, err := range c.WatchService(ctx, "a") {
			end = err
		}
		if !errors.Is(end, connectplugin.ErrHandshakeRefused) || len(s.asked) != 1 {
			t.Errorf("asked %d times: %v", len(s.asked), end)
		}
	})
}

// A host of the first wire version numbers nothing: what it repeats after a
// reconnect is yielded once, what it says anew is yielded.
func TestAudit_REG10_OldHostsRepeatsAreYieldedOnce(t *testing.T) {
	t.Parallel()
	at := func(state connectpluginv1.ServiceState, version string) *connectpluginv1.WatchServiceEvent {
		return &connectpluginv1.WatchServiceEvent{ServiceType: "a", State: state, Endpoint: &connectpluginv1.ServiceEndpoint{ProviderId: "p", Version: version}}
	}
	broken := connect.NewError(connect.CodeUnavailable, io.EOF)
	events, end := watchScript(t, &scripted{streams: []scriptedStream{
		{[]*connectpluginv1.WatchServiceEvent{at(hosttest.Available, "1"), at(hosttest.Available, "2"), at(hosttest.Degraded, "2")}, broken},
		{[]*connectpluginv1.WatchServiceEvent{at(hosttest.Degraded, "2"), at(hosttest.Available, "2")}, broken},
		{[]*connectpluginv1.WatchServiceEvent{at(hosttest.Available, "2")}, broken},
	}})
	if connect.CodeOf(end) != connect.CodeNotFound {
		t.Errorf("the watch ended with %v", end)
	}
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprint(e.State, e.Version))
	}
	want := []string{fmt.Sprint(hosttest.Available, "1"), fmt.Sprint(hosttest.Available, "2"), fmt.Sprint(hosttest.Degraded, "2"), fmt.Sprint(hosttest.Available, "2")}
	if !slices.Equal(got, want) {
		t.Errorf("yielded %v, want %v", got, want)
	}
}
