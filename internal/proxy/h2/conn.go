package h2

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What a connection offers the server, and how much it keeps.
const (
	streamWindow   = 256 << 10 // bytes that the server may send ahead on one stream
	connWindow     = 64 << 20  // and on the connection: no stream waits for another
	initialWindow  = 65535     // of both, until settings say otherwise
	tableSize      = 4096      // of HPACK, both ways
	maxFrame       = 16 << 10  // the smallest bound that the protocol allows, ours and at first the server's
	largestFrame   = 64 << 10  // that is sent, whatever the server allows
	readBuffer     = 32 << 10
	highWater      = 256 << 10 // pending bytes at which senders of data wait
	keepBatch      = 512 << 10 // memory of a batch that is kept for the next one while there are streams
	floodLimit     = 1 << 20   // pending bytes at which the server is taken for hostile
	maxStreamID    = 1<<31 - 1
	firstStreams   = 100       // concurrent streams until the server states its limit
	maxInterim     = 8         // responses 1xx before the final one
	flushRounds    = 4         // batches that one caller writes for others before a goroutine takes over
	gatherBody     = 128 << 10 // the part in which a gathered response is handed over
	lenience       = 4         // a header list that many times too large ends the connection, a smaller one its stream
	closeGrace     = time.Second
	maxTick        = 10 * time.Second
	ticksPerPeriod = 4
)

// Config sets the bounds of a connection. Every field is required.
type Config struct {
	MaxHeaderBytes int           // of one header list, as HTTP/2 counts it
	IdleTimeout    time.Duration // a connection without streams closes
	PingInterval   time.Duration // of silence before a ping
	PingTimeout    time.Duration // for its answer
}

// Conn is one connection. Its methods are safe for concurrent use.
type Conn struct {
	// Fixed at creation.
	nc      net.Conn
	batch   *Batch // below nc, or nil
	cfg     Config
	framer  *http2.Framer // for reading; used by the reader only
	reader  *bufio.Reader
	stop    chan struct{} // closed with the connection
	stopped sync.WaitGroup

	load   atomic.Int64  // streams on the wire
	limit  atomic.Int64  // of load, as the server stated it
	usable atomic.Bool   // takes new streams
	frames atomic.Uint64 // read so far

	mu         sync.Mutex
	err        error // why the connection ended
	draining   bool  // the server is going away
	streams    map[uint32]*Stream
	nextID     uint32
	out        []byte // frames that wait to be written
	spare      []byte // the other buffer, while neither is being written
	flushing   bool
	encoder    *hpack.Encoder
	block      bytes.Buffer // what encoder writes to
	sendWindow int64
	peer       peerSettings
	waiters    []*Stream // streams that wait for sendWindow or room in out
	woken      []*Stream // streams to wake when the read buffer is empty
	received   int64     // bytes of data not yet acknowledged on the connection
	control    int       // bytes in out that the server made us send
	pingSent   bool
}

// peerSettings is what the server stated about itself.
type peerSettings struct {
	maxFrame int
	window   int64
}

// Client starts a connection on nc, sends the preface and waits for the
// server's. It owns nc from then on; if it fails nc is closed. The batch is the one
// below nc's TLS connection, or nil.
func Client(ctx context.Context, nc net.Conn, batch *Batch, cfg Config) (*Conn, error) {
	c := &Conn{
		nc:         nc,
		batch:      batch,
		cfg:        cfg,
		reader:     bufio.NewReaderSize(nc, readBuffer),
		stop:       make(chan struct{}),
		streams:    make(map[uint32]*Stream),
		nextID:     1,
		sendWindow: initialWindow,
		peer:       peerSettings{maxFrame: maxFrame, window: initialWindow},
	}
	c.limit.Store(firstStreams)
	c.encoder = hpack.NewEncoder(&c.block)
	c.framer = http2.NewFramer(io.Discard, c.reader)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(maxFrame)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(tableSize, nil)
	c.framer.MaxHeaderListSize = c.maxHeaderBytes() * lenience
	if err := c.handshake(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	c.usable.Store(true)
	c.stopped.Add(2)
	go c.read()
	go c.tend()
	return c, nil
}

// Usable reports whether the connection takes new streams, now or when others
// have ended.
func (c *Conn) Usable() bool { return c.usable.Load() }

// Full reports whether it takes new streams only when others have ended.
func (c *Conn) Full() bool { return c.load.Load() >= c.limit.Load() }

// Load returns the number of streams on the wire.
func (c *Conn) Load() int { return int(c.load.Load()) }

// Done is closed when the connection is.
func (c *Conn) Done() <-chan struct{} { return c.stop }

// Close tells the server, fails the streams that are left with [ErrClosed],
// closes the connection and waits for its goroutines.
func (c *Conn) Close() {
	_ = c.nc.SetWriteDeadline(time.Now().Add(closeGrace))
	c.mu.Lock()
	if c.err == nil {
		c.out = appendGoAway(c.out, http2.ErrCodeNo)
		c.flushLocked()
	}
	c.mu.Unlock()
	c.fail(ErrClosed)
	c.stopped.Wait()
}

// handshake exchanges the prefaces.
func (c *Conn) handshake(ctx context.Context) error {
	release := context.AfterFunc(ctx, func() { _ = c.nc.SetDeadline(time.Unix(1, 0)) })
	preface := []byte(http2.ClientPreface)
	preface = appendSettings(preface,
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: c.maxHeaderBytes()})
	preface = appendWindowUpdate(preface, 0, connWindow-initialWindow)
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
	return c.err
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
	c.err = err
	c.usable.Store(false)
	for _, s := range c.streams {
		c.failStreamLocked(s, err)
	}
	close(c.stop)
	c.mu.Unlock()
	if c.batch != nil {
		_ = c.batch.Close() // TLS would wait to say goodbye
		return
	}
	_ = c.nc.Close()
}
