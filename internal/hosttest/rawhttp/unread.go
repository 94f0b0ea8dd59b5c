package rawhttp

import (
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Unread is a request of a client that takes nothing of the response but its head.
type Unread struct {
	client *Client
	stream uint32
}

// Ask sends a request without credentials on a connection of its own, and returns when the
// head of the response is there.
func Ask(t *testing.T, host *hosttest.Host, path string, body []byte) *Unread {
	t.Helper()
	w := Dial(t, host)
	if err := w.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: host.Addr()},
		{Name: ":path", Value: path},
		{Name: "content-type", Value: "application/proto"},
	}
	u := &Unread{client: w, stream: w.send(fields, body)}
	for {
		frame, err := w.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := frame.(*http2.MetaHeadersFrame); ok && f.StreamID == u.stream {
			return u
		}
	}
}

// Reset gives the request up.
func (u *Unread) Reset(t *testing.T) {
	t.Helper()
	if err := u.client.framer.WriteRSTStream(u.stream, http2.ErrCodeCancel); err != nil {
		t.Fatal(err)
	}
}

// Close ends the connection.
func (u *Unread) Close() { _ = u.client.conn.Close() }
