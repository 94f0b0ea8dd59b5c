package h2

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/coarse"
	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// What a connection offers the server, and how much it keeps.
const (
	streamWindow   = 256 << 10 // bytes that the server may send ahead on one stream
	leastAhead     = 32 << 10  // and at first, or where its owner has too much ahead
	connWindow     = 2 << 20   // and on the connection, until it was read: a short answer is not behind more
	initialWindow  = 65535     // of both, until settings say otherwise
	tableSize      = 4096      // of HPACK, both ways
	maxFrame       = 16 << 10  // the smallest bound that the protocol allows, ours and at first the server's
	largestFrame   = 64 << 10  // that is sent, whatever the server allows
	highWater      = 256 << 10 // pending bytes at which senders of data wait
	openWater      = 384 << 10 // and at which no further stream is opened
	keepBatch      = 512 << 10 // memory of a batch that is kept for the next one while there are streams
	floodLimit     = 1 << 20   // pending bytes at which the server is taken for hostile
	maxStreamID    = 1<<31 - 1
	noLimit        = 1<<31 - 1                      // of concurrent streams, where the server states none
	mostAbandoned  = 500                            // streams given up on a connection that takes any number at once
	maxInterim     = 8                              // responses 1xx before the final one
	flushRounds    = 4                              // batches that one caller writes for others before a goroutine takes over
	gatherBody     = 128 << 10                      // the part in which a gathered response is handed over
	largestBlock   = 4 << 20                        // a larger header block ends the connection, one over the bound its stream
	largestList    = 16 << 20                       // a list that is larger once it is decoded ends the connection, too
	shareFree      = 256 << 10                      // bytes of the send window above which nobody is held to a share
	holdTime       = 5 * time.Millisecond           // for which a response that is still growing is gathered
	pingSpacing    = 5*time.Minute + 10*time.Second // least time between two pings: what gRPC servers allow
	closeGrace     = time.Second
	maxTick        = 10 * time.Second
	ticksPerPeriod = 4
)

// Config sets the bounds of a connection. Every bound is required.
type Config struct {
	MaxHeaderBytes int           // of one header list, as HTTP/2 counts it
	IdleTimeout    time.Duration // a connection without streams closes
	PingInterval   time.Duration // of silence under open streams before a ping
	PingTimeout    time.Duration // for its answer

	// Away is told that the server is going away, at most twice, and not where it answers a farewell. Nil tells nobody.
	Away func(*GoAwayError)
	// Room is told that the connection may take more streams than before, or
	// none any more. It must not block. Nil tells nobody.
	Room func()
	// Freed is told that the server ended streams of a connection that was full.
	// It must not block. Nil tells nobody.
	Freed func()
	// Pace is how fast the server may send what answers usually lack, which several connections may share. Nil has
	// nobody wait.
	Pace *Pace
	// Clock is what tells many connections when to look after silence; nil is for one alone.
	Clock *coarse.Clock
}

// Conn is one connection. Its methods are safe for concurrent use.
type Conn struct {
	// Fixed at creation.
	nc      net.Conn
	batch   *Batch // below nc, or nil
	cfg     Config
	framer  *http2.Framer // for reading; used by the reader only
	reader  *source
	stop    chan struct{} // closed with the connection
	stopped sync.WaitGroup

	in   headerBlock   // used by the reader only
	due  chan struct{} // the writer has something to write
	home chan struct{} // the writer is to go home

	vigil vigil // used by look alone

	load      atomic.Int64  // streams on the wire
	limit     atomic.Int64  // of load, as the server stated it
	abandoned atomic.Int64  // streams that were given up, whose handlers may still run
	usable    atomic.Bool   // takes new streams
	choked    atomic.Bool   // too much waits to be written for another stream
	dry       atomic.Bool   // streams hold more of the send window than is left of it
	answered  atomic.Bool   // at least one stream got a response
	used      atomic.Bool   // by calls for which it is to stay
	retired   atomic.Bool   // ended by us, not by the server
	flooded   atomic.Bool   // ended because of what the server sent that nothing explains
	frames    atomic.Uint64 // read so far
	writes    atomic.Uint64 // begun and ended so far: odd while one is under way

	mu         sync.Mutex
	err        error        // why the connection ended
	deaf       error        // why nothing can be written any more, while what the server said before is still read
	goAway     *GoAwayError // what the server said when it went
	draining   bool         // takes no new streams
	parting    bool         // the server was told that we are about to end
	lastStream uint32       // that the server will process
	lowered    bool         // since streams were looked at
	streams    map[uint32]*Stream
	nextID     uint32
	out        []byte // frames that wait to be written
	spare      []byte // the other buffer, while neither is being written
	taken      int64  // bytes of frames before out
	sent       int64  // bytes of them that may have reached the server
	flushing   bool
	encoder    *hpack.Encoder
	late       map[uint32]lateStream
	heads      int          // of calls since the last look
	indexes    bool         // encoder has a table
	block      bytes.Buffer // what encoder writes to
	sendWindow int64
	shares     map[string]*share // of sendWindow, by owner
	holders    []*share          // those that hold anything
	shared     int64             // the sum of what they hold
	lastSender *share            // that sent last
	capacity   int64             // the largest that sendWindow was
	peer       peerSettings
	waiters    []*Stream // streams that wait for sendWindow or room in out
	woken      []*Stream // streams to wake when the read buffer is empty
	held       []*Stream // streams whose response is being gathered
	holdArmed  bool
	holding    *time.Timer   // until it ends; nil before the first one
	looks      *coarse.Timer // of the vigil
	writer     bool          // a goroutine waits for due
	moved      bool          // windows changed since waiters were looked at
	raised     bool          // the window of every stream grew since they were looked at
	received   int64         // bytes of data not yet acknowledged on the connection
	control    int           // bytes in out that the server made us send
	worth      worth
}

// peerSettings is what the server stated about itself.
type peerSettings struct {
	maxFrame  int
	maxHeader int64  // of one header list, as HTTP/2 counts it
	window    int64  // initial, of each stream
	table     uint32 // of header fields
	largest   int64  // no stream's window differs by more from it
}

// Client starts a connection on nc, sends the preface and waits for the
// server's. It owns nc from then on; if it fails nc is closed. The batch is the one
// below nc's TLS connection, or nil.
func Client(ctx context.Context, nc net.Conn, batch *Batch, cfg Config) (*Conn, error) {
	if cfg.Clock == nil {
		cfg.Clock = new(coarse.Clock)
	}
	c := &Conn{
		nc:         nc,
		batch:      batch,
		cfg:        cfg,
		reader:     &source{from: nc},
		stop:       make(chan struct{}),
		due:        make(chan struct{}, 1),
		home:       make(chan struct{}),
		streams:    make(map[uint32]*Stream),
		shares:     make(map[string]*share),
		nextID:     1,
		lastStream: maxStreamID,
		sendWindow: initialWindow,
		capacity:   initialWindow,
		peer:       peerSettings{maxFrame: maxFrame, maxHeader: math.MaxInt64, window: initialWindow, table: tableSize},
		worth:      worth{list: max(explainedList, int64(cfg.MaxHeaderBytes)), late: streamWindow, since: time.Now()},
	}
	c.limit.Store(noLimit)
	c.encoder = hpack.NewEncoder(&c.block)
	c.framer = http2.NewFramer(io.Discard, c.reader)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(maxFrame)
	c.in.init(c.maxHeaderBytes())
	if _, secure := nc.(*tls.Conn); secure && batch != nil {
		c.reader.records = &batch.records
		batch.records.Begin(time.Now())
	}
	if err := c.handshake(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	c.usable.Store(true)
	c.stopped.Go(c.read)
	c.tend()
	return c, nil
}

// Close tells the server, fails the streams that are left with [ErrClosed],
// closes the connection and waits for its goroutines.
func (c *Conn) Close() {
	_ = c.nc.SetWriteDeadline(time.Now().Add(closeGrace))
	c.retired.Store(true)
	c.mu.Lock()
	if c.err == nil {
		c.out = h2frame.AppendGoAway(c.out, 0, http2.ErrCodeNo)
		c.flushLocked()
	}
	c.mu.Unlock()
	c.fail(ErrClosed)
	c.stopped.Wait()
}

// farewellID is the highest id of a server's own streams, of which there are none: the frame says that all of them were seen. Those on
// nghttp2 (Node 20 and 22) end the connection and all that is open on it where the id is odd, which none of a server's is.
const farewellID = 1<<31 - 2

// Farewell tells the server that whoever calls it is about to end. What is under way goes on; what could go on for ever is for the
// server to end. It should be followed by Retire: servers on net/http and Node take no more streams from then on.
func (c *Conn) Farewell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.parting {
		return
	}
	c.parting = true
	c.out = h2frame.AppendGoAway(c.out, farewellID, http2.ErrCodeNo)
	c.flushElsewhereLocked()
}

// handshake exchanges the prefaces.
func (c *Conn) handshake(ctx context.Context) error {
	release := context.AfterFunc(ctx, func() { _ = c.nc.SetDeadline(time.Unix(1, 0)) })
	preface := []byte(http2.ClientPreface)
	c.encoder.SetMaxDynamicTableSizeLimit(0) // until many calls go
	preface = h2frame.AppendSettings(preface,
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: leastAhead},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: c.maxHeaderBytes()})
	preface = h2frame.AppendWindowUpdate(preface, 0, connWindow-initialWindow)
	if _, err := c.nc.Write(preface); err != nil {
		release()
		return fmt.Errorf("send preface: %w", err)
	}
	frame, err := c.framer.ReadFrame()
	if !release() {
		return fmt.Errorf("await settings: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("await settings: %w", err)
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return fmt.Errorf("await settings: %w", http2.ConnectionError(http2.ErrCodeProtocol))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.applySettingsLocked(settings); err != nil {
		return err
	}
	c.flushLocked()
	return cmp.Or(c.err, c.deaf) //nolint:wrapcheck // they are its own
}

// maxHeaderBytes is the bound of a header list as the protocol states it.
func (c *Conn) maxHeaderBytes() uint32 {
	return uint32(c.cfg.MaxHeaderBytes) //nolint:gosec // a bound from the configuration
}

// fail ends the connection and every stream of it.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if c.goAway != nil {
		err = fmt.Errorf("%w (%w)", err, c.goAway)
	}
	c.err = err
	c.flooded.Store(errors.Is(err, errFlood))
	c.usable.Store(false)
	c.wakeReadyLocked() // what had ended before has ended
	c.dropUnprocessedLocked()
	for _, s := range c.streams {
		c.failStreamLocked(s, c.lossLocked(s))
	}
	c.settleAllLocked()
	close(c.stop)
	c.untendLocked()
	c.mu.Unlock()
	if c.batch != nil {
		_ = c.batch.Close() // TLS would wait to say goodbye
	} else {
		_ = c.nc.Close()
	}
	c.tellRoom()
}

// lossLocked says what the end of the connection means for a stream.
func (c *Conn) lossLocked(s *Stream) error {
	err := c.err
	if !errors.Is(err, ErrClosed) {
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	if s.at >= c.sent {
		err = fmt.Errorf("%w: nothing was written: %w", ErrUnprocessed, err)
	}
	return err
}

func (c *Conn) tellRoom() {
	if c.cfg.Room != nil {
		c.cfg.Room()
	}
}
