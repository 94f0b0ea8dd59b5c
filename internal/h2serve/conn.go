package h2serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/coarse"
	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

const (
	initialWindow = 65535     // of both directions, until settings say otherwise
	tableSize     = 4096      // of HPACK, both ways
	leastFrame    = 16 << 10  // the smallest bound that the protocol allows, ours and at first the peer's
	largestFrame  = 64 << 10  // that is sent, whatever the peer takes
	largestWindow = 1<<31 - 1 // of both directions
	lastStreamID  = 1<<31 - 1
	record        = 16 << 10  // what one of TLS holds
	highWater     = 256 << 10 // pending bytes at which senders of data wait
	fullShares    = 8         // connections of one peer that may have as much; of more each may have less
	floodLimit    = 1 << 20   // pending bytes at which the peer is taken for hostile
	flushRounds   = 4         // batches that one handler writes for others before the writer takes over
	mostPassed    = 32        // short ends of answers that come before one that is not
	mostNames     = 128       // that are not usual and a connection remembers
	longestName   = 64        // of them
	handlersFor   = 2         // handlers that may run for each stream that may be open: some were reset
	closeGrace    = time.Second
	quietGrace    = 500 * time.Millisecond // for which a peer that was told to go may stay
)

var (
	errClosed  = errors.New("the server has ended")
	errGone    = errors.New("the peer has closed the connection")
	errPreface = errors.New("the connection does not begin as HTTP/2")
)

// The bounds that peers meet, see [Config].
var (
	ErrSlow    = errors.New("the connection does not begin as HTTP/2 in time")
	ErrSilent  = errors.New("the peer does not answer")
	ErrStuck   = errors.New("the peer takes nothing")
	ErrTrailer = errors.New("the trailer of a request is larger than is taken") // so that its stream is reset
)

// conn is one connection. One goroutine at a time reads it; those that serve its requests write.
type conn struct {
	// Fixed at creation, or before anything is read.
	s      *Server
	nc     Agreed
	meter  Metered // nil where nobody counts
	shared Shared  // nil where nobody knows of others
	state  *tls.ConnectionState
	remote string
	life   context.Context //nolint:containedctx // of its requests
	end    context.CancelFunc

	// Of whoever reads.
	reader *ahead
	framer *http2.Framer
	blocks *heads
	texts  texts
	names  map[string]string // canonical ones of header fields that are not known; nil for none
	fresh  *stream           // whose handler was not begun yet
	met    bool              // the peer has sent its settings, which come first
	calm   bool              // few requests came lately
	stray  int64             // that the meter was not told of yet

	frames atomic.Uint64 // read so far
	writes atomic.Uint64 // begun and ended so far: odd while one is under way

	mu         sync.Mutex
	err        error // why it ended
	retiring   bool
	heardAll   bool // the peer has said that nothing is under way
	left       bool // the peer is told which request is the last
	started    bool
	streams    map[uint32]*stream
	running    int // handlers
	lastID     uint32
	out        []byte // frames that wait to be written
	flushing   bool
	unsettled  bool // some of what was written is left
	encoder    *hpack.Encoder
	heads      int               // of requests since the last look
	indexes    bool              // encoder has a table
	block      bytes.Buffer      // what encoder writes to
	lower      map[string]string // as names, the other way
	window     int64             // that the peer takes
	brief      []*stream         // that wait for window, or for room in out, with the short end of an answer
	blocked    []*stream         // and the others; who waits longest is first, and after those of brief
	passed     int               // how many of brief came before the first of blocked
	woken      int               // of them, whose turn it is
	watching   []*stream         // that wait until what is pending has left
	recvWindow int64             // that the peer may send
	credit     int64             // of it that was read and is not given back yet
	underway   int64             // that may still come for streams that have ended
	half       []halfClosed      // streams that are to be reset, those whose time is over first in front
	halfTick   *coarse.Timer     // of hangUp, nil before the first of half
	peer       peerSettings
	tick       *coarse.Timer // of tend
	parting    *time.Timer   // nil until nothing is left to do
	broken     *time.Timer   // nil until the peer says that it can read no more
	tended     tended
}

// peerSettings is what the peer stated about itself.
type peerSettings struct {
	maxFrame int
	window   int64  // initial, of each stream
	table    uint32 // of header fields
}

func newConn(s *Server, nc Agreed) *conn {
	c := &conn{
		s: s, nc: nc, remote: nc.RemoteAddr().String(),
		streams: map[uint32]*stream{},
		window:  initialWindow, recvWindow: int64(s.cfg.ConnWindow),
		peer: peerSettings{maxFrame: leastFrame, window: initialWindow, table: tableSize},
	}
	c.life, c.end = context.WithCancel(s.cfg.ConnContext(context.WithValue(s.life, http.LocalAddrContextKey, nc.LocalAddr()), nc))
	c.meter, _ = nc.(Metered)
	c.shared, _ = nc.(Shared)
	c.encoder = hpack.NewEncoder(&c.block)
	c.reader = &ahead{from: c.nc}
	c.renewFramer()
	c.blocks = newHeads(s.cfg.MaxHeaderBytes)
	return c
}

// renewFramer makes the framer, which keeps room for as large a frame as it has read.
func (c *conn) renewFramer() {
	c.framer = http2.NewFramer(io.Discard, c.reader)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(leastFrame)
}

// run begins the connection and serves it.
func (c *conn) run() {
	if err := c.handshake(); err != nil {
		c.fail(err)
		return
	}
	c.s.work(job{c: c})
}

// abort closes the connection at once: TLS would wait to say goodbye.
func (c *conn) abort() {
	c.nc.Abort()
	_ = c.nc.Close() // of what is gone
}

// handshake begins HTTP/2.
func (c *conn) handshake() error {
	_ = c.nc.SetDeadline(time.Now().Add(c.s.cfg.HandshakeTimeout))
	if c.state = c.nc.TLS(); c.state == nil || c.state.NegotiatedProtocol != protocol {
		return errPreface
	}
	preface := make([]byte, len(http2.ClientPreface))
	switch _, err := io.ReadFull(c.reader, preface); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrSlow
	case err != nil || string(preface) != http2.ClientPreface:
		return errPreface
	}
	cfg := &c.s.cfg
	c.mu.Lock()
	defer c.mu.Unlock()
	c.encoder.SetMaxDynamicTableSizeLimit(0) // until many requests come
	c.out = h2frame.AppendSettings(c.out,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: cfg.MaxStreams},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: cfg.MaxHeaderBytes},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: cfg.StreamWindow})
	if cfg.ConnWindow > initialWindow {
		c.out = h2frame.AppendWindowUpdate(c.out, 0, cfg.ConnWindow-initialWindow)
	}
	c.started = true // whoever ends it from now on says so
	c.flushLocked()
	_ = c.nc.SetDeadline(time.Time{})
	c.tendLocked()
	return c.err
}

// fail ends the connection and every stream of it.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	if c.tick != nil {
		c.tick.Stop()
	}
	if c.parting != nil {
		c.parting.Stop()
	}
	if c.halfTick != nil {
		c.halfTick.Stop()
	}
	if c.broken != nil {
		c.broken.Stop()
	}
	for _, st := range c.streams {
		st.breakLocked(fmt.Errorf("connection: %w", err))
	}
	c.wakeBlockedLocked()
	c.mu.Unlock()
	if errors.Is(err, ErrSlow) || errors.Is(err, ErrSilent) || errors.Is(err, ErrStuck) {
		c.s.cfg.Met(c.nc, err)
	}
	c.end()
	c.s.cfg.Away(c.life)
	c.abort()
	c.s.forget(c)
}

// retire has the peer send no more requests, and ends the connection when those that are there are
// done.
func (c *conn) retire(noneUnderWay bool) {
	c.mu.Lock()
	c.heardAll = c.heardAll || noneUnderWay
	began := c.started
	if !c.retiring && began && c.err == nil {
		c.retiring = true
		c.goodbyeLocked()
	}
	c.retiring = true
	c.mu.Unlock()
	if !began {
		c.fail(errClosed)
	}
}

// goodbyeLocked tells the peer to go: what it sent before it hears of that is still served.
func (c *conn) goodbyeLocked() {
	c.out = h2frame.AppendGoAway(c.out, lastStreamID, http2.ErrCodeNo)
	c.flushElsewhereLocked()
	c.quietLocked()
}

// quietLocked looks whether nothing is left to do on a connection that is to end. The peer closes
// it; if it does not, or has nothing under way, that is done here.
func (c *conn) quietLocked() {
	if !c.retiring || c.running > 0 || len(c.streams) > 0 || c.err != nil {
		return
	}
	grace := quietGrace
	if c.heardAll && !c.flushing && len(c.out) == 0 {
		grace = 0
	}
	if c.parting == nil {
		c.parting = time.AfterFunc(grace, c.leave)
	} else {
		c.parting.Reset(grace)
	}
}

// awayLocked hears that the peer goes. One that does for an error has to close the connection, and reads nothing more of it
// (RFC 9113, section 5.4.1); Node does not close it, and has all that is open there wait for ever.
func (c *conn) awayLocked(code http2.ErrCode) {
	switch {
	case code == http2.ErrCodeNo:
		c.s.cfg.Away(c.life)
	case c.broken == nil && c.err == nil:
		c.broken = time.AfterFunc(closeGrace, func() {
			_ = c.nc.SetDeadline(time.Now().Add(closeGrace))
			_ = c.nc.Close()
			c.fail(errClosed)
		})
	}
}

func (c *conn) leave() {
	c.mu.Lock()
	quiet := c.running == 0 && len(c.streams) == 0 && c.err == nil
	if quiet && (c.flushing || len(c.out) > 0) { // the last answer has not left
		quiet = false
		c.parting.Reset(quietGrace)
	}
	if quiet && !c.heardAll {
		c.left = true
		c.out = h2frame.AppendGoAway(c.out, c.lastID, http2.ErrCodeNo)
		c.flushLocked()
	}
	c.mu.Unlock()
	if quiet {
		_ = c.nc.SetDeadline(time.Now().Add(closeGrace))
		_ = c.nc.Close()
		c.fail(errClosed)
	}
}
