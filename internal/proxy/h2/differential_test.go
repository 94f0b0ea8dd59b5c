package h2_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// outcome is what a caller sees of a call.
type outcome struct {
	over    bool // the call ended
	early   bool // before the server hung up
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
	call(kind int) outcome // returns when the call is over
	close()
}

// play returns what the callers of a client see of a schedule. It has to run in a
// bubble.
func play(s *schedule, writes [][]byte, start func(net.Conn) (player, error)) ([]outcome, error) {
	client, server := net.Pipe()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _, _ = io.Copy(io.Discard, server) })
	defer server.Close()
	wg.Go(func() { _ = http2.NewFramer(server, nil).WriteSettings(s.settings...) })
	p, err := start(client)
	if err != nil {
		return nil, err
	}
	defer p.close()
	synctest.Wait()
	var mu sync.Mutex
	outcomes := make([]outcome, len(s.requests))
	hungUp := false
	for i, kind := range s.requests {
		wg.Go(func() {
			o := p.call(kind)
			mu.Lock()
			defer mu.Unlock()
			o.over, o.early = true, !hungUp
			outcomes[i] = o
		})
		synctest.Wait()
	}
	for _, part := range writes {
		if _, err := server.Write(part); err != nil {
			break
		}
		synctest.Wait()
	}
	time.Sleep(time.Second)
	mu.Lock()
	hungUp = true
	mu.Unlock()
	_ = server.Close()
	time.Sleep(time.Minute)
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(outcomes), nil
}

// ours is our client.
type ours struct {
	conn *h2.Conn
}

func startOurs(nc net.Conn) (player, error) {
	cfg := config()
	cfg.MaxHeaderBytes = listLimit
	conn, err := h2.Client(nowhere, nc, nil, cfg)
	return &ours{conn}, err
}

func (p *ours) close() { p.conn.Close() }

func (p *ours) call(kind int) outcome {
	request := get
	switch kind {
	case kindPost:
		request = post("hello")
	case kindEndless:
		request = post("")
	}
	request.Gather = kind == kindGet
	s, _, err := p.conn.Open(request)
	if err != nil {
		return outcome{err: err}
	}
	defer s.Close()
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

func (p *theirs) call(kind int) outcome {
	method, content := http.MethodGet, io.Reader(nil)
	switch kind {
	case kindPost:
		method, content = http.MethodPost, strings.NewReader("hello")
	case kindEndless:
		r, w := io.Pipe()
		p.bodies = append(p.bodies, w)
		method, content = http.MethodPost, r
	}
	req, err := http.NewRequestWithContext(nowhere, method, "https://example.com/", content)
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
		if !mine[i].over {
			t.Errorf("call %d waits though its connection is gone", i)
		}
		if mine[i].agree(other[i]) || explained(facts, mine[i], other[i]) {
			continue
		}
		t.Errorf("call %d:\n ours   %v\n theirs %v\n%s", i, mine[i], other[i], facts.text)
	}
}

// seeds are schedules of every length.
func seeds(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([][]byte, 0, n)
	for i := range n {
		seed := make([]byte, 10+i%150)
		for j := range seed {
			seed[j] = byte(r.Uint32())
		}
		all = append(all, seed)
	}
	return all
}

// FuzzDifferential plays schedules of a server to our client and to x/net's: callers
// see the same of both, but for the differences that are listed.
func FuzzDifferential(f *testing.F) {
	log.SetOutput(io.Discard) // x/net's
	for _, seed := range seeds(300) {
		f.Add(seed)
	}
	f.Fuzz(compare)
}

var nowhere = context.Background() // calls are ended by the server only
