package h2_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/h2frame/frametest"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// outcome is what a caller sees of a call.
type outcome struct {
	kind    int  // of its request
	over    bool // the call ended
	early   bool // before the server hung up
	stuck   bool // its request was not sent when everything was allowed, nor given up
	status  int
	fields  string
	body    string
	trailer string
	err     error
}

func (o outcome) String() string {
	return fmt.Sprintf("over=%v early=%v status=%d fields=%.80s body=%d trailer=%.80s err=%v", o.over, o.early, o.status, o.fields, len(o.body), o.trailer, o.err)
}

// agree reports whether two callers see the same. Of a response that broke they
// may have got more or less.
func (o outcome) agree(other outcome) bool {
	if o.over != other.over || o.early != other.early || (o.err == nil) != (other.err == nil) {
		return false
	}
	if o.err != nil {
		return true
	}
	return o.status == other.status && o.fields == other.fields && o.body == other.body && o.trailer == other.trailer
}

// player is a client to which a schedule is played.
type player interface {
	call(ctx context.Context, kind int) outcome // returns when the call is over
	unsent() int                                // uploads on their way
	readsOn() bool                              // whatever its own writes wait for
	close()
}

// ours is our client.
type ours struct {
	conn    *h2.Conn
	sending atomic.Int64 // uploads on their way
}

func startOurs(nc net.Conn) (player, error) {
	cfg := config()
	cfg.MaxHeaderBytes = listLimit
	conn, err := h2.Client(nowhere, nc, nil, cfg)
	return &ours{conn: conn}, err
}

func (p *ours) close() { p.conn.Close() }

func (p *ours) unsent() int { return int(p.sending.Load()) }

func (p *ours) readsOn() bool { return true }

func (p *ours) call(ctx context.Context, kind int) outcome {
	request := get
	switch kind {
	case kindPost:
		request = post("hello")
	case kindEndless, kindUpload:
		request = post("")
	}
	request.Gather = kind == kindGet
	s, _, err := p.conn.Open(request)
	if err != nil {
		return outcome{err: err}
	}
	var upload sync.WaitGroup
	defer upload.Wait()
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Cancel(context.Cause(ctx)) })()
	if kind == kindUpload {
		p.sending.Add(1)
		upload.Go(func() {
			_ = s.Write(uploaded, true)
			p.sending.Add(-1)
		})
	}
	var o outcome
	var fields []hpack.HeaderField
	if o.status, fields, o.err = s.Head(); o.err != nil {
		return o
	}
	o.fields = listed(fields)
	o.body, o.err = body(s)
	o.trailer = listed(s.Trailer())
	return o
}

// theirs is the client of x/net.
type theirs struct {
	tr     *http2.Transport  //nolint:staticcheck // the code that net/http has, in a form that takes a connection
	conn   *http2.ClientConn //nolint:staticcheck // as above
	bodies []*io.PipeWriter
}

const listLimit = 16 << 10

func startTheirs(nc net.Conn) (player, error) {
	tr := &http2.Transport{DisableCompression: true, AllowHTTP: true, MaxHeaderListSize: listLimit} //nolint:staticcheck // as above
	conn, err := tr.NewClientConn(nc)                                                               //nolint:staticcheck // as above
	return &theirs{tr: tr, conn: conn}, err
}

func (p *theirs) close() {
	for _, w := range p.bodies {
		_ = w.CloseWithError(io.ErrUnexpectedEOF)
	}
	_ = p.conn.Close()
}

func (p *theirs) unsent() int { return 0 } // its own affair

func (p *theirs) readsOn() bool { return false }

func (p *theirs) call(ctx context.Context, kind int) outcome {
	method, content := http.MethodGet, io.Reader(nil)
	switch kind {
	case kindPost:
		method, content = http.MethodPost, strings.NewReader("hello")
	case kindEndless:
		r, w := io.Pipe()
		p.bodies = append(p.bodies, w)
		method, content = http.MethodPost, r
	case kindUpload:
		method, content = http.MethodPost, bytes.NewReader(uploaded)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://example.com/", content)
	if err != nil {
		return outcome{err: err}
	}
	res, err := p.conn.RoundTrip(req)
	if err != nil {
		return outcome{err: err}
	}
	defer res.Body.Close()
	o := outcome{status: res.StatusCode, fields: listedHeader(res.Header)}
	var b bytes.Buffer
	_, o.err = b.ReadFrom(res.Body)
	o.body, o.trailer = b.String(), listedHeader(res.Trailer)
	return o
}

// listed and listedHeader bring fields into one form: by name, in the order of
// their values.
func listed(fields []hpack.HeaderField) string {
	header := http.Header{}
	for _, f := range fields {
		header.Add(f.Name, f.Value)
	}
	return listedHeader(header)
}

func listedHeader(header http.Header) string {
	var lines []string
	for name, values := range header {
		for _, v := range values {
			lines = append(lines, fmt.Sprintf("%s=%q", name, v))
		}
	}
	slices.SortStableFunc(lines, func(a, b string) int {
		nameA, _, _ := strings.Cut(a, "=")
		nameB, _, _ := strings.Cut(b, "=")
		return strings.Compare(nameA, nameB)
	})
	return strings.Join(lines, ";")
}

// compare plays a schedule to both clients.
func compare(t *testing.T, seed []byte) {
	t.Helper()
	var mine, other []outcome
	var mineErr, otherErr error
	s := newSchedule(seed)
	synctest.Test(t, func(*testing.T) { mine, mineErr = play(s, s.writes, startOurs) })
	// Theirs gets frame by frame: what a frame does to it another goroutine may
	// still be doing when the next one comes.
	synctest.Test(t, func(*testing.T) { other, otherErr = play(s, s.single(), startTheirs) })
	if (mineErr == nil) != (otherErr == nil) {
		t.Fatalf("start: %v and %v", mineErr, otherErr)
	}
	facts := factsOf(s)
	for i := range mine {
		if mine[i].stuck && facts.whole {
			t.Errorf("call %d: an upload is stuck\n%s", i, facts.text)
		}
		if !mine[i].over {
			t.Errorf("call %d waits though its connection is gone", i)
		}
		if mine[i].agree(other[i]) || explained(facts, mine[i], other[i]) {
			continue
		}
		t.Errorf("call %d:\n ours   %v\n theirs %v\n%s", i, mine[i], other[i], facts.text)
	}
}

// FuzzDifferential plays schedules of a server to our client and to x/net's: callers
// see the same of both, but for the differences that are listed.
func FuzzDifferential(f *testing.F) {
	log.SetOutput(io.Discard) // x/net's
	for _, seed := range frametest.Seeds(300, 150) {
		f.Add(seed)
	}
	for how := range byte(7) { // one upload, a server that takes nothing in, and what happens then
		for after := range byte(4) {
			f.Add([]byte{0, kindUpload, 0, 0, 0, 19, 0, 0, 1, 2, 1, after, 0, how, 8, 1, 0, 0})
		}
	}
	f.Fuzz(compare)
}

var nowhere = context.Background() // calls are ended by the server only
