package page

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/internal/glyphs"
)

// events passes on what the host sends, a line of JSON each, as long as whoever looks is in. They are not the
// events of an EventSource, which sends no header and so no key.
func (s *Server) events(w http.ResponseWriter, r *http.Request, until time.Time) {
	if r.Method != http.MethodGet { // a HEAD would hold a stream that it cannot read
		w.Header().Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		http.Error(w, "the page is open too often", http.StatusTooManyRequests)
		return
	}
	ctx, cancel := context.WithDeadline(r.Context(), until)
	defer cancel()
	stream, err := s.cfg.Read.Follow(ctx, connect.NewRequest(&adminv1.FollowRequest{}))
	if err != nil {
		unreachable(w, err)
		return
	}
	defer func() { _ = stream.Close() }()
	more := stream.Receive()
	if !more {
		unreachable(w, stream.Err())
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := http.NewResponseController(w)
	if _, err := fmt.Fprintf(w, "{\"page\":{\"writable\":%t}}\n", s.cfg.Change != nil); err != nil {
		return
	}
	for ; more; more = stream.Receive() {
		text, err := protojson.Marshal(stream.Msg())
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "%s\n", glyphs.Text(string(text))); err != nil || out.Flush() != nil {
			return
		}
	}
}

// unreachable says that the host tells nothing, and by which code.
func unreachable(w http.ResponseWriter, err error) {
	why := "it ended the call"
	if err != nil {
		why = connect.CodeOf(err).String()
	}
	http.Error(w, "the host cannot be followed: "+why, http.StatusBadGateway)
}

// change has the host change something.
func (s *Server) change(w http.ResponseWriter, r *http.Request, _ time.Time) {
	if s.cfg.Change == nil {
		http.Error(w, "the page is read-only: start it with --changes", http.StatusForbidden)
		return
	}
	var ask struct {
		Action string `json:"action"`
		Name   string `json:"name"`
	}
	if !read(w, r, &ask) {
		return
	}
	var err error
	switch ask.Action {
	case "revoke":
		_, err = s.cfg.Change.Revoke(r.Context(), connect.NewRequest(&adminv1.RevokeRequest{
			Who: &adminv1.RevokeRequest_SelfId{SelfId: ask.Name},
		}))
	case "readmit":
		_, err = s.cfg.Change.Readmit(r.Context(), connect.NewRequest(&adminv1.ReadmitRequest{SelfId: ask.Name}))
	case "drain":
		_, err = s.cfg.Change.Drain(r.Context(), connect.NewRequest(&adminv1.DrainRequest{RuntimeId: ask.Name}))
	default:
		http.Error(w, "no such action", http.StatusBadRequest)
		return
	}
	if err != nil {
		http.Error(w, "the host refused: "+connect.CodeOf(err).String(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
