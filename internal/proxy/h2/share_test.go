package h2_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

const upload = 4 << 20

// owned is a request of the owner whose body comes later.
func owned(owner string) h2.Request {
	r := post("")
	r.Owner = owner
	return r
}

// stall has an owner upload on so many streams; nothing of it is read.
func stall(t *testing.T, c *h2.Conn, p *peer, owner string, streams int) {
	t.Helper()
	for range streams {
		s, _ := open(t, c, owned(owner))
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Write(make([]byte, upload), true)
		}()
		t.Cleanup(func() { c.Close(); <-done })
	}
	synctest.Wait()
	for len(p.frames) > 0 {
		<-p.frames
	}
}

// TestAudit_USE05_StalledUploadsLeaveTheWindow has A upload to a server that reads
// nothing of it, and B after that.
func TestAudit_USE05_StalledUploadsLeaveTheWindow(t *testing.T) {
	t.Parallel()
	for _, streams := range []int{1, 100} {
		for _, settings := range [][]http2.Setting{nil, {{ID: http2.SettingInitialWindowSize, Val: 1 << 20}}} {
			t.Run(fmt.Sprintf("streams=%d,settings=%v", streams, settings), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c, p := pipe(t, config(), settings...)
					stall(t, c, p, "a", streams)
					if !c.Dry("b") || c.Dry("a") {
						t.Errorf("dry for b %v, for a %v", c.Dry("b"), c.Dry("a"))
					}
					// B writes message after message, and the server reads them.
					s, _ := open(t, c, owned("b"))
					id := p.want(http2.FrameHeaders).StreamID
					for range 100 {
						done := make(chan error, 1)
						go func() { done <- s.Write(make([]byte, 1000), false) }()
						for got := 0; got < 1000; {
							f := p.want(http2.FrameData)
							if f.StreamID != id {
								t.Fatalf("frame %v", f)
							}
							got += len(f.payload)
							p.must(p.fr.WriteWindowUpdate(0, uint32(len(f.payload))))
							p.must(p.fr.WriteWindowUpdate(id, uint32(len(f.payload))))
						}
						p.must(<-done)
					}
				})
			})
		}
	}
}

// TestAudit_USE05_LoneUploadGoesOn sends to servers that give back in their own
// ways: at half of the window, on the connection only, at once.
func TestAudit_USE05_LoneUploadGoesOn(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		window uint32 // of a stream
		step   int    // in which the window is given back
		stream bool   // on the stream too
	}{
		"at once":             {window: 65535, step: 1, stream: true},
		"just over half":      {window: 65535, step: 32768, stream: true},
		"connection only":     {window: upload, step: 16 << 10},
		"connection, at half": {window: upload, step: 32768},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, p := pipe(t, config(), http2.Setting{ID: http2.SettingInitialWindowSize, Val: test.window})
				s, _ := open(t, c, owned("a"))
				p.want(http2.FrameHeaders)
				done := make(chan error, 1)
				go func() { done <- s.Write(make([]byte, upload), true) }()
				for got, owed := 0, 0; got < upload; {
					f := p.want(http2.FrameData)
					got += len(f.payload)
					if owed += len(f.payload); owed < test.step {
						continue
					}
					p.must(p.fr.WriteWindowUpdate(0, uint32(owed)))
					if test.stream {
						p.must(p.fr.WriteWindowUpdate(1, uint32(owed)))
					}
					owed = 0
				}
				p.must(<-done)
			})
		})
	}
}

// TestAudit_USE05_UnreadResponseHoldsUpNobody leaves responses unread.
func TestAudit_USE05_UnreadResponseHoldsUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, config())
		for i := range 300 {
			open(t, c, get)
			p.headers(uint32(2*i+1), false, ":status", "200")
			for range 2 { // the whole window of the stream
				p.data(uint32(2*i+1), false, strings.Repeat("x", 16<<10))
			}
		}
		synctest.Wait()
		drain(p)
		s, _ := open(t, c, get)
		id := p.want(http2.FrameHeaders).StreamID
		p.headers(id, false, ":status", "200")
		p.data(id, true, "hello")
		if got, err := body(s); got != "hello" || err != nil {
			t.Errorf("body %q, %v", got, err)
		}
	})
}

// TestAudit_ATK06_UnreadRequestsAreBounded cancels calls to a server that reads
// nothing. What waits for it stays small, and nothing is lost when it reads again.
func TestAudit_ATK06_UnreadRequestsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		gated := &stuckConn{Conn: client, stop: make(chan struct{})}
		c, p := handshake(t, config(), gated, server)
		gated.block.Store(true)
		first := make(chan struct{})
		go func() { // which waits for the server, and others leave theirs with it
			defer close(first)
			if s, _, err := c.Open(get); err == nil {
				s.Close()
			}
		}()
		synctest.Wait()
		large := get
		large.Fields = append(large.Fields[:4:4], hpack.HeaderField{Name: "a", Value: strings.Repeat("~", 31<<10)})
		accepted := 0
		for range 2000 {
			s, _, err := c.Open(large)
			if err == nil {
				accepted++
				s.Cancel(errors.New("enough"))
				s.Close()
			} else if !errors.Is(err, h2.ErrFull) {
				t.Fatal(err)
			}
		}
		if accepted > 20 || !c.Full() {
			t.Errorf("%d accepted, full %v", accepted, c.Full())
		}
		gated.release()
		<-first
		synctest.Wait()
		if c.Full() {
			t.Error("still full")
		}
		drain(p)
		s, _ := open(t, c, get)
		id := p.want(http2.FrameHeaders).StreamID
		p.headers(id, true, ":status", "200")
		if status, _, err := s.Head(); status != 200 || err != nil {
			t.Errorf("status %d, %v", status, err)
		}
	})
}

// TestAudit_ATK13_InitialWindowMovesEveryStream changes the initial window back and
// forth in one frame, under many streams: each is left with the right window.
func TestAudit_ATK13_InitialWindowMovesEveryStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, config(), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
		for range 10 {
			s, rest := open(t, c, post(strings.Repeat("x", 1000)))
			go func() { _ = s.Write(rest, true) }()
		}
		synctest.Wait()
		got := drain(p)
		for id := uint32(1); id < 20; id += 2 {
			if got[id] != 100 {
				t.Errorf("stream %d: %d bytes", id, got[id])
			}
		}
		settings := []http2.Setting{}
		for i := range 1000 {
			settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i % 7)})
		}
		p.must(p.fr.WriteSettings(append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 50})...))
		p.must(p.fr.WriteWindowUpdate(1, 60))
		synctest.Wait()
		if got := drain(p); got[1] != 10 || got[3] != 0 { // 50-100+60, and 50-100
			t.Errorf("sent %v", got)
		}
		p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 130}))
		synctest.Wait()
		if got := drain(p); got[1] != 80 || got[3] != 30 || got[19] != 30 {
			t.Errorf("sent %v", got)
		}
		p.must(p.fr.WriteWindowUpdate(3, 1<<31-1-100))
		p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
		<-c.Done() // a window of more than 2^31-1
	})
}

// drain returns how much data each stream sent.
func drain(p *peer) map[uint32]int {
	got := map[uint32]int{}
	for len(p.frames) > 0 {
		if f := <-p.frames; f.Type == http2.FrameData {
			got[f.StreamID] += len(f.payload)
		}
	}
	return got
}
