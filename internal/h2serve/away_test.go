package h2serve_test

import (
	"context"
	"net"
	"net/http"
	"testing"

	"golang.org/x/net/http2"
)

// A peer that says that it is about to end is heard, with the context of its connection, and what it asked for is served; so is the
// end of the connection.
func TestServer_HearsThatItsPeerLeaves(t *testing.T) {
	t.Parallel()
	type connKey struct{}
	heard, release := make(chan any, 2), make(chan struct{})
	cfg := config(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	cfg.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, "this one")
	}
	cfg.Away = func(ctx context.Context) { heard <- ctx.Value(connKey{}) }
	r := start(t, cfg)
	w := dial(t, r.addr)
	w.request(1, true, nil)
	w.ok(w.WriteGoAway(0, http2.ErrCodeProtocol, nil)) // which is another matter
	w.ok(w.WriteGoAway(1<<31-2, http2.ErrCodeNo, nil))
	if got := <-heard; got != "this one" {
		t.Errorf("heard of %v", got)
	}
	close(release)
	if w.until(isA[*http2.MetaHeadersFrame]) == nil {
		t.Error("the request was not answered")
	}
	select {
	case <-heard:
		t.Error("heard twice of one farewell")
	default:
	}
	_ = w.nc.Close()
	if got := <-heard; got != "this one" {
		t.Errorf("at its end heard of %v", got)
	}
}

// A peer that says that it cannot go on reads nothing more, whether it closes the connection or not: its requests end, and the
// connection, so that it notices.
func TestAudit_USE07_APeerThatCannotGoOnIsDisconnected(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	r := start(t, config(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		<-req.Context().Done()
		close(ended)
	})))
	w := dial(t, r.addr)
	w.request(1, true, nil)
	w.ok(w.WriteGoAway(0, http2.ErrCodeCompression, nil))
	<-ended
	w.until(func(http2.Frame) bool { return false }) // fails where the connection does not end
}
