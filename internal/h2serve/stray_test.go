package h2serve_test

import (
	"bytes"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
)

// metered has its connections count what is told of them.
type metered struct {
	net.Listener

	strays  atomic.Int64
	decoded atomic.Int64
	many    atomic.Int64
	most    int64 // of decoded, zero for any number
}

func (m *metered) Accept() (net.Conn, error) {
	c, err := m.Listener.Accept()
	if agreed, ok := c.(*edge.Conn); ok {
		return &meteredConn{agreed, m}, err
	}
	return c, err
}

type meteredConn struct {
	*edge.Conn

	of *metered
}

func (c *meteredConn) Stray(n int) { c.of.strays.Add(int64(n)) }

func (c *meteredConn) Decoded(beyond, many int) bool {
	c.of.many.Add(int64(many))
	got := c.of.decoded.Add(int64(beyond))
	return c.of.most == 0 || got <= c.of.most
}

func (*meteredConn) TooLong() bool { return false }

// What comes for a stream that has ended counts, but for what its peer could send before it knew.
func TestServer_CountsWhatComesForEndedStreams(t *testing.T) {
	t.Parallel()
	const part, least = 16 << 10, 64 // four parts are a window
	ended := func(w *wire) {
		w.request(stream, false, nil)
		w.until(isA[*http2.RSTStreamFrame])
	}
	data := func(w *wire, length int) { w.ok(w.WriteData(stream, false, make([]byte, length))) }
	for name, play := range map[string]struct {
		begin func(w *wire)
		send  []int
		want  int64
	}{
		"under way":        {ended, []int{part, part, part, part}, 0},
		"small, under way": {ended, []int{1, 1, part, part, part, part - 2*least}, 0},
		"more than that":   {ended, []int{part, part, part, part, part, part}, 2 * part},
		"not reset yet": {func(w *wire) {
			w.request(stream, false, nil)
			w.until(isTheEnd)
		}, []int{part, part, part, part, part}, part},
		"after its own end": {func(w *wire) { w.request(stream, true, nil); w.until(isTheEnd) }, []int{1, part}, least + part},
		"after its reset":   {func(w *wire) { w.request(stream, false, nil); w.ok(w.WriteRSTStream(stream, http2.ErrCodeCancel)) }, []int{part}, part},
		"of no stream": {func(w *wire) {
			w.request(stream, false, map[string]string{"te": "gzip"})
			w.until(isA[*http2.RSTStreamFrame])
		}, []int{part, part, part, part, part}, part},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &metered{Listener: listen(t)}
			waits := name == "after its reset"
			server := h2serve.New(config(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if waits {
					<-r.Context().Done()
				}
			})))
			go func() { _ = server.Serve(l) }()
			t.Cleanup(func() { _ = server.Close() })
			w := dial(t, l.Addr().String())
			play.begin(w)
			for _, length := range play.send {
				data(w, length)
			}
			w.ok(w.WritePing(false, [8]byte{1}))
			w.until(func(f http2.Frame) bool { ping, ok := f.(*http2.PingFrame); return ok && ping.IsAck() })
			if got := l.strays.Load(); got != play.want {
				t.Errorf("%d bytes were counted, want %d", got, play.want)
			}
		})
	}
}

// The meter is told what the fields of each head are worth beyond the bytes that came, frame by frame, and whoever it
// cuts off is read no further.
func TestAudit_H48_HeadsArePaidForAsTheyAreDecoded(t *testing.T) {
	t.Parallel()
	const size, times, frames = 3_900, 10_000, 5
	most := int64(times * size)
	l := &metered{Listener: listen(t), most: most}
	server := h2serve.New(config(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	w := dial(t, l.Addr().String())
	w.request(1, true, map[string]string{"x": strings.Repeat("~", size)}) // longer in Huffman's code: it is sent plain
	w.until(isTheEnd)
	if got := l.decoded.Load(); got <= 0 || got >= size { // more than came, which is nearly all of it
		t.Errorf("the first head is worth %d bytes beyond those that came", got)
	}
	w.ok(w.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 3, BlockFragment: append([]byte{0x84, 0x84}, bytes.Repeat([]byte{0xbe}, times)...),
	}))
	for n := range frames { // of which the first is not wanted any more
		_ = w.WriteContinuation(3, n == frames-1, bytes.Repeat([]byte{0xbe}, times))
	}
	for {
		if _, err := w.ReadFrame(); err != nil {
			break
		}
	}
	if got := l.decoded.Load(); got <= most || got > 2*most {
		t.Errorf("%d bytes were decoded until the connection ended, want those of one frame, about %d", got, most)
	}
}

// The meter is told of each field of a head that is more than is usual, once, whatever the frames it came in.
func TestAudit_ATK14_ManyFieldsAreTold(t *testing.T) {
	t.Parallel()
	l := &metered{Listener: listen(t)}
	server := h2serve.New(config(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	w := dial(t, l.Addr().String())
	const usual, pseudo, more, eachMore = 64, 4, 100, 50
	var want int64
	for i, fields := range []int{1, usual - pseudo, usual - pseudo + 1, usual + more - pseudo} {
		for n := range max(fields+pseudo-usual, 0) {
			want += int64(1 + (n+1)/eachMore)
		}
		id := uint32(2*i + 1)
		w.block.Reset()
		for _, f := range []string{":method", ":scheme", ":authority", ":path"} {
			w.ok(w.enc.WriteField(hpack.HeaderField{Name: f, Value: map[string]string{":method": "GET", ":path": "/", ":scheme": "https"}[f]}))
		}
		for range fields {
			w.ok(w.enc.WriteField(hpack.HeaderField{Name: "x", Value: "y"}))
		}
		whole := w.block.Bytes()
		half := len(whole) / 2
		w.ok(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: whole[:half], EndStream: true}))
		w.ok(w.WriteContinuation(id, true, whole[half:]))
		w.until(isTheEnd)
		if got := l.many.Load(); got != want {
			t.Errorf("after a head of %d fields: %d are told, want %d", fields+pseudo, got, want)
		}
	}
}

// isTheEnd reports the end of a response.
func isTheEnd(f http2.Frame) bool {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return f.StreamEnded()
	case *http2.DataFrame:
		return f.StreamEnded()
	}
	return false
}
