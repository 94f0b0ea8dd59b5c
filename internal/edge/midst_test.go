package edge_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// Few connections for which nobody pays are at a time in the midst of a head that comes in several frames; others are read on when
// these are whole. A peer that has others wait for the rest of its head is cut off, and a head that comes to its end gets through.
func TestAudit_ATK14_FewHeadsAreUnfinishedAtATime(t *testing.T) {
	t.Parallel()
	const ofOne, ofAll = 32, 128
	server, client := certificate(t)
	for name, tt := range map[string]struct {
		conns, addresses, most int
		pays                   bool
		ends                   int // connections that are cut off
	}{
		"as many as there may be":   {ofOne - 1, 1, ofOne - 1, false, 0},
		"more of one address":       {3 * ofOne, 1, ofOne, false, 3 * ofOne},
		"as many of each of three":  {3 * (ofOne - 1), 3, 3 * (ofOne - 1), false, 0},
		"more of all than there be": {ofAll + ofOne, 8, ofAll, false, ofAll + ofOne},
		"of somebody":               {3 * ofOne, 1, 3 * ofOne, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client, most: 1000}
				if tt.pays {
					b.account = account(1e9, 1e9)
				}
				b.serve(t, server)
				close(b.release)
				var read, ended atomic.Int32
				for i := range tt.conns {
					c := b.beginHead(t, fmt.Sprint("127.0.0.", 10+i%tt.addresses))
					go func() {
						if c.next(false) == nil {
							read.Add(1)
						}
						<-c.ended
						ended.Add(1)
					}()
				}
				time.Sleep(200 * time.Millisecond) // requests are taken on in turn, and nobody is cut off yet
				synctest.Wait()
				if n := read.Load(); int(n) != tt.most {
					t.Errorf("%d are in the midst of a head, want %d", n, tt.most)
				}
				begun := time.Now()
				honest := b.beginHead(t, "127.0.0.10")
				if err := honest.next(true); err != nil {
					t.Errorf("a head that is whole: %v", err)
				}
				synctest.Wait()
				if took := time.Since(begun); b.begun.Load() != 1 || took > 5*time.Second {
					t.Errorf("%d requests of one begin in %v", b.begun.Load(), took)
				}
				if time.Sleep(10 * time.Second); int(ended.Load()) > tt.ends || tt.ends > 0 && int(ended.Load()) < tt.ends-tt.most {
					t.Errorf("%d connections ended, want about %d", ended.Load(), tt.ends)
				}
			})
		})
	}
}

// What a connection waits for a seat for ends with it, and the seat of one that ended is another's.
func TestAudit_ATK14_SeatsOfUnfinishedHeadsComeBack(t *testing.T) {
	t.Parallel()
	const most = 32
	server, client := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{client: client, most: 1000}
		b.serve(t, server)
		close(b.release)
		for round := range 3 {
			var all sync.WaitGroup
			for range 2 * most {
				c := b.beginHead(t, sibling)
				all.Go(func() {
					time.Sleep(time.Duration(round) * 100 * time.Millisecond)
					_ = c.conn.NetConn().Close()
					<-c.ended
				})
			}
			all.Wait()
			synctest.Wait()
			c := b.beginHead(t, sibling)
			begun := time.Now()
			if err := c.next(true); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if took := time.Since(begun); int(b.begun.Load()) != round+1 || took > 200*time.Millisecond {
				t.Errorf("%d requests begin after %v, want %d soon", b.begun.Load(), took, round+1)
			}
		}
	})
}

// Who had a seat for one head waits for that of the next like others, and what comes before it is served meanwhile.
func TestAudit_ATK14_ASeatIsForOneUnfinishedHead(t *testing.T) {
	t.Parallel()
	const most = 32
	server, client := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{client: client, ahead: 16 << 10}
		b.serve(t, server)
		close(b.release)
		heads := make([]*halfHead, most+1)
		for i := range heads {
			heads[i] = b.beginHead(t, sibling)
			synctest.Wait()
		}
		var piece bytes.Buffer
		f := http2.NewFramer(&piece, nil)
		err := f.WriteContinuation(1, true, nil)
		err = errors.Join(err, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: halfBlock, EndStream: true}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := heads[0].conn.Write(piece.Bytes()); err != nil {
			t.Fatal(err)
		}
		var on [2]atomic.Bool
		for i, h := range []*halfHead{heads[0], heads[most]} {
			go func() {
				if http2.NewFramer(h.conn, nil).WriteContinuation(uint32(3-2*i), false, nil) == nil {
					on[i].Store(true)
				}
			}()
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if n := b.begun.Load(); n != 1 || on[0].Load() || !on[1].Load() {
			t.Errorf("%d requests begin, want that of the head that is whole; who had the seat goes on: %t, who waited for it: %t",
				n, on[0].Load(), on[1].Load())
		}
	})
}

// halfBlock is POST https://x/.
var halfBlock = []byte{0x83, 0x87, 0x84, 0x41, 1, 'x'}

// halfHead is a connection in the midst of a head.
type halfHead struct {
	conn  *tls.Conn
	ended chan struct{} // closed when it is
}

// beginHead begins a head that goes on in another frame.
func (b *bubble) beginHead(t *testing.T, from string) *halfHead {
	t.Helper()
	c := b.dial(t, from)
	h := &halfHead{conn: c, ended: make(chan struct{})}
	if err := begin(c); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(h.ended)
		_, _ = io.Copy(io.Discard, c)
	}()
	err := http2.NewFramer(c, nil).WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: halfBlock, EndStream: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// next goes on with it.
func (h *halfHead) next(last bool) error {
	return http2.NewFramer(h.conn, nil).WriteContinuation(1, last, []byte{0, 1, 'x', 1, 'x'})
}

// Who has a seat does not wait in the midst of its head for what its fields take: others would wait for the seat as long.
func TestAudit_ATK14_WhoHasASeatDoesNotWaitForItsFields(t *testing.T) {
	t.Parallel()
	const most, pieces, many = 32, 60, 2000
	server, client := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{client: client, below: &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}}
		l := edge.Listen(b.below, edge.Config{
			TLS: server, HandshakeTimeout: time.Hour, MaxConnections: 100, MaxPerAddress: 100, Silence: time.Hour,
			Key: func(a net.Addr) string { return a.(*net.TCPAddr).IP.String() },
		})
		t.Cleanup(l.End)
		whole := make(chan struct{}, 1)
		go func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				go readHeads(nc, many, whole)
			}
		}()
		for range most {
			c := b.beginHead(t, sibling)
			go func() {
				for range pieces {
					if http2.NewFramer(c.conn, nil).WriteContinuation(1, false, make([]byte, most)) != nil {
						return
					}
				}
			}()
		}
		time.Sleep(100 * time.Millisecond) // these have the seats
		begun := time.Now()
		if err := b.beginHead(t, sibling).next(true); err != nil {
			t.Error(err)
		}
		<-whole
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("a head waits %v for a seat", took)
		}
	})
}

// readHeads reads frames, of which those of a head that are longer than that of an honest peer have so many fields.
func readHeads(nc net.Conn, many int, whole chan<- struct{}) {
	defer func() { _ = nc.Close() }()
	c, _ := nc.(*edge.Conn)
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(io.Discard, c)
	for {
		switch frame, err := f.ReadFrame(); piece := frame.(type) {
		case *http2.ContinuationFrame:
			if piece.HeadersEnded() {
				whole <- struct{}{}
			}
			if len(piece.HeaderBlockFragment()) > len(halfBlock) && !c.Decoded(0, many) {
				return
			}
		default:
			if err != nil {
				return
			}
		}
	}
}
