package h2serve_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// answered is what a client sees of one request.
type answered struct {
	interim []string
	status  string // empty before there is one
	fields  string
	body    int // bytes of it
	text    string
	trailer string
	ended   bool
	broken  bool // before the end
	code    http2.ErrCode
	wrong   string // what a server must not do
}

func (a *answered) String() string {
	return fmt.Sprintf("%v %s %.200s %d %.200q trailer=%s ended=%v broken=%v %v", a.interim, a.status, a.fields, a.body, a.text, a.trailer, a.ended, a.broken, a.code)
}

// seen is what a client sees of a connection.
type seen struct {
	left int32 // handlers, in the end

	mu      sync.Mutex
	streams map[uint32]*answered
	pongs   int
	code    http2.ErrCode // of GOAWAY
	away    bool
	over    bool // before the client hung up
	hung    bool
	sent    int64
	frame   uint32 // the longest
	wrong   string
}

func newSeen() *seen { return &seen{streams: map[uint32]*answered{}} }

func (v *seen) hangUp() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hung = true
}

// failed reports whether the connection ended for a fault of the client.
func (v *seen) failed() bool { return v.over || v.code != http2.ErrCodeNo }

// follow reads what the server sends.
func (v *seen) follow(nc net.Conn) {
	fr := http2.NewFramer(nil, nc)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fr.SetMaxReadFrameSize(1 << 20)
	for {
		f, err := fr.ReadFrame()
		v.mu.Lock()
		if err != nil {
			v.over = !v.hung
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
				v.wrong = err.Error()
			}
			v.mu.Unlock()
			_, _ = io.Copy(io.Discard, nc)
			return
		}
		v.take(f)
		v.mu.Unlock()
	}
}

func (v *seen) take(f http2.Frame) {
	v.frame = max(v.frame, f.Header().Length)
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		v.of(f.StreamID).head(f)
	case *http2.DataFrame:
		v.sent += int64(f.Length)
		a := v.of(f.StreamID)
		if a.status == "" || a.closed() {
			a.wrong = "data where none may be"
		}
		a.body += len(f.Data())
		if len(a.text) < 2000 && !strings.Contains(string(f.Data()), "\x00") {
			a.text += string(f.Data())
		}
		a.ended = a.ended || f.StreamEnded()
	case *http2.RSTStreamFrame:
		if a := v.of(f.StreamID); !a.closed() {
			a.broken, a.code = true, f.ErrCode
		}
	case *http2.GoAwayFrame:
		v.away, v.code = true, f.ErrCode
	case *http2.PingFrame:
		if f.IsAck() {
			v.pongs++
		}
	}
}

func (v *seen) of(id uint32) *answered {
	a := v.streams[id]
	if a == nil {
		a = &answered{}
		v.streams[id] = a
	}
	return a
}

func (a *answered) closed() bool { return a.ended || a.broken }

func (a *answered) head(f *http2.MetaHeadersFrame) {
	header := http.Header{}
	for _, field := range f.RegularFields() {
		header.Add(field.Name, field.Value)
	}
	status := f.PseudoValue("status")
	switch {
	case a.closed():
		a.wrong = "a head after the end"
	case a.status != "":
		a.trailer = listed(header)
		if status != "" || !f.StreamEnded() {
			a.wrong = "a second head"
		}
	case strings.HasPrefix(status, "1"):
		a.interim = append(a.interim, status+listed(header))
	case status == "":
		a.wrong = "a head without status"
	default:
		a.status, a.fields = status, listed(header)
	}
	a.ended = a.ended || f.StreamEnded()
}

// unlawful returns what no client must see.
func (v *seen) unlawful(f *facts) string {
	for id, a := range v.streams {
		switch {
		case a.wrong != "":
			return fmt.Sprintf("stream %d: %s", id, a.wrong)
		case !f.opened[id] && !a.broken:
			return fmt.Sprintf("stream %d, which nobody opened: %v", id, a)
		case int64(a.body) > f.window+f.given[id]:
			return fmt.Sprintf("stream %d: %d bytes are beyond its window", id, a.body)
		}
	}
	switch {
	case v.wrong != "":
		return v.wrong
	case v.sent > initialWindow+f.given[0]:
		return fmt.Sprintf("%d bytes are beyond the window of the connection", v.sent)
	case v.frame > f.frame:
		return fmt.Sprintf("a frame of %d bytes", v.frame)
	}
	return ""
}

const initialWindow = 65535

// against returns what differs from another server.
func (v *seen) against(other *seen, f *facts) []string {
	var out []string
	if (v.code != other.code || v.over != other.over) && !explainedEnd(f, v, other) {
		out = append(out, fmt.Sprintf("the connection: %v over=%v, and %v over=%v", v.code, v.over, other.code, other.over))
	}
	if v.failed() != other.failed() {
		return out // one of them served what the other did not
	}
	if v.pongs != other.pongs && !v.failed() {
		out = append(out, fmt.Sprintf("%d and %d answers to pings", v.pongs, other.pongs))
	}
	// Which of several answers gets what is left of the connection's window is nobody's business.
	exhausted := max(v.sent, other.sent) >= initialWindow+f.given[0]
	ids := maps.Clone(v.streams)
	maps.Copy(ids, other.streams)
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		a, b := v.of(id), other.of(id)
		late := (v.failed() || exhausted) && (!a.ended || !b.ended) // was on its way when the connection ended, or waits
		if late || f.reset[id] || !f.opened[id] || a.agree(b) || explained(f, id, a, b) {
			continue
		}
		out = append(out, fmt.Sprintf("stream %d:\n %v\n %v", id, a, b))
	}
	return out
}

// agree reports whether two servers answered the same. What a stream had before it broke may differ.
func (a *answered) agree(b *answered) bool {
	if a.ended != b.ended || a.broken != b.broken {
		return false
	}
	if a.broken {
		return a.code == b.code
	}
	same := a.status == b.status && a.fields == b.fields && slices.Equal(a.interim, b.interim)
	if a.ended {
		same = same && a.body == b.body && a.text == b.text && a.trailer == b.trailer
	}
	return same
}
