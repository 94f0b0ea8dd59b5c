package ctl

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
)

// toldHost answers each Follow in its turn, and notes after which event it was asked.
type toldHost struct {
	adminv1connect.UnimplementedAdminReadServiceHandler

	turns []func(*connect.ServerStream[adminv1.FollowResponse]) error

	mu    sync.Mutex
	after []uint64
}

// Follow takes the next turn, one after the other.
func (h *toldHost) Follow(_ context.Context, req *connect.Request[adminv1.FollowRequest], stream *connect.ServerStream[adminv1.FollowResponse]) error {
	h.mu.Lock()
	turn := h.turns[len(h.after)]
	h.after = append(h.after, req.Msg.GetAfter())
	h.mu.Unlock()
	return turn(stream)
}

// A host that ends the stream without a word, or is away for a while, is followed again, which is said once;
// of one that began anew all is asked for; one that refuses is not asked again.
func TestFollow_AsksAgain(t *testing.T) {
	t.Parallel()
	sends := func(begun int64, event uint64) func(*connect.ServerStream[adminv1.FollowResponse]) error {
		return func(stream *connect.ServerStream[adminv1.FollowResponse]) error {
			return stream.Send(&adminv1.FollowResponse{
				Snapshot: &adminv1.Snapshot{Host: &adminv1.HostInfo{StartedAt: timestamppb.New(time.Unix(begun, 0))}},
				Events:   []*adminv1.AuditEvent{{Sequence: event}},
			})
		}
	}
	away := func(*connect.ServerStream[adminv1.FollowResponse]) error {
		return connect.NewError(connect.CodeUnavailable, nil)
	}
	refuses := func(*connect.ServerStream[adminv1.FollowResponse]) error {
		return connect.NewError(connect.CodePermissionDenied, nil)
	}
	h := &toldHost{turns: []func(*connect.ServerStream[adminv1.FollowResponse]) error{
		sends(1, 7), away, sends(2, 8), sends(2, 1), refuses,
	}}
	mux := http.NewServeMux()
	mux.Handle(adminv1connect.NewAdminReadServiceHandler(h))
	host := httptest.NewServer(mux)
	t.Cleanup(host.Close)
	var said strings.Builder
	var events []uint64
	o := &operator{read: adminv1connect.NewAdminReadServiceClient(host.Client(), host.URL)}
	err := (&tool{err: &said}).follow(t.Context(), o, &adminv1.FollowRequest{}, func(m *adminv1.FollowResponse) error {
		events = append(events, m.GetEvents()[0].GetSequence())
		return nil
	})
	if _, ended := errors.AsType[*endedError](err); !ended || connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("it ends with %v", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if want := []uint64{0, 7, 7, 0, 1}; !slices.Equal(h.after, want) {
		t.Errorf("it asks for what is after %d, want %d", h.after, want)
	}
	if want := []uint64{7, 1}; !slices.Equal(events, want) {
		t.Errorf("it shows %d, want %d", events, want)
	}
	const gone = "connectpluginctl: the host went away or ended the stream (it ended the stream); trying again\n"
	if want := gone + "connectpluginctl: the host is followed again\n" + gone; said.String() != want {
		t.Errorf("it says %q, want %q", said.String(), want)
	}
}
