//nolint:wrapcheck // errors of the framer end an attack, and nobody looks at them
package kinds

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/record"
)

const (
	headerTable = 4096

	fieldMethod, fieldScheme, fieldAuthority, fieldPath, fieldType = ":method", ":scheme", ":authority", ":path", "content-type"

	gathered = 16 << 10 // bytes of frames that are written at once
	patient  = 2 * time.Second
)

// conn is a connection on which the attacker writes frames as it likes. One goroutine
// writes.
type conn struct {
	*http2.Framer

	attack *attack
	as     *credentials    // of an instance, nil for the attacker's own
	ctx    context.Context //nolint:containedctx // of the attack
	tls    *tls.Conn
	keys   *record.Keys
	out    *bufio.Writer
	block  bytes.Buffer
	fields *hpack.Encoder
	next   uint32 // stream

	records *record.Writer // in place of TLS, nil for none

	answers atomic.Int64  // heads of them, and their DATA frames
	ended   atomic.Int64  // streams, by the host
	ends    chan struct{} // tells that some ended
	reading sync.WaitGroup
	gone    chan struct{} // closed when the host ended the connection
}

// connect opens a connection and says hello. Where read is false nothing is ever read.
func (a *attack) connect(ctx context.Context, read bool, settings ...http2.Setting) (*conn, error) {
	raw, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	cfg := a.tls.Clone()
	cfg.NextProtos = []string{"h2"}
	cfg.ServerName = cmp.Or(cfg.ServerName, hostName)
	keys := new(record.Keys)
	cfg.KeyLogWriter = keys
	c := &conn{attack: a, ctx: ctx, tls: tls.Client(raw, cfg), keys: keys, next: 1, gone: make(chan struct{}), ends: make(chan struct{}, 1)}
	if err := c.tls.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	c.out = bufio.NewWriterSize(c.tls, gathered)
	c.Framer = http2.NewFramer(c.out, c.tls)
	c.ReadMetaHeaders = hpack.NewDecoder(headerTable, nil)
	c.fields = hpack.NewEncoder(&c.block)
	_, err = c.out.WriteString(http2.ClientPreface)
	if err := errors.Join(err, c.WriteSettings(settings...), c.flush()); err != nil {
		_ = c.tls.Close()
		return nil, err
	}
	if read {
		c.reading.Go(c.read)
	}
	return c, nil
}

// read takes what the host sends until the connection ends.
func (c *conn) read() {
	defer close(c.gone)
	reason := ""
	for {
		f, err := c.ReadFrame()
		if _, ok := errors.AsType[http2.StreamError](err); ok {
			continue
		}
		if err != nil {
			if c.ctx.Err() == nil {
				c.attack.ended(reason)
			}
			return
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			c.answers.Add(1)
			c.end(f.StreamEnded())
		case *http2.GoAwayFrame:
			reason = string(f.DebugData())
			if reason == "" {
				reason = f.ErrCode.String()
			}
		case *http2.RSTStreamFrame:
			if f.ErrCode != http2.ErrCodeNo {
				c.attack.refused.Add(1)
			}
			c.end(true)
		case *http2.MetaHeadersFrame:
			c.answers.Add(1)
			c.take(f)
			c.end(f.StreamEnded())
		}
	}
}

// end notes that a stream may have ended.
func (c *conn) end(did bool) {
	if !did {
		return
	}
	c.ended.Add(1)
	select {
	case c.ends <- struct{}{}:
	default:
	}
}

func (c *conn) take(f *http2.MetaHeadersFrame) {
	if f.PseudoValue("status") != strconv.Itoa(http.StatusTooManyRequests) {
		return
	}
	c.attack.refused.Add(1)
	for _, field := range f.RegularFields() {
		if field.Name == "retry-after" {
			c.attack.told.Store(true)
		}
	}
}

// close ends the connection and waits for its reader. It says no goodbye, which a host that does
// not read would have it wait for.
func (c *conn) close() {
	_ = c.tls.NetConn().Close()
	c.reading.Wait()
}

// flush writes what was gathered.
func (c *conn) flush() error {
	_ = c.tls.SetWriteDeadline(time.Now().Add(MostTime))
	return c.out.Flush()
}

// more counts a frame and says whether another may be sent.
func (c *conn) more() error {
	select {
	case <-c.gone:
		return errGone
	case <-c.ctx.Done():
		return c.ctx.Err()
	default:
	}
	if c.attack.sent.Add(1) > mostFrames {
		return errEnough
	}
	return nil
}

// head is a header block for a request to a path, with credentials where the attacker has
// some. More fields come in pairs.
func (c *conn) head(path string, more ...string) []byte {
	c.block.Reset()
	list := []string{
		fieldMethod, http.MethodPost, fieldScheme, "https", fieldAuthority, c.attack.addr, fieldPath, path,
		fieldType, "application/proto", "connect-protocol-version", "1",
	}
	who := c.as
	if who == nil {
		who = c.attack.owned()
	}
	if who != nil {
		list = append(list, "x-plugin-runtime-id", who.runtimeID, "authorization", "Bearer "+who.token)
	}
	list = append(list, more...)
	for i := 0; i < len(list); i += 2 {
		_ = c.fields.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]})
	}
	return bytes.Clone(c.block.Bytes())
}

// open sends a request's header block, in as many frames as it takes, on a stream of its own, which it returns.
func (c *conn) open(block []byte, end bool) (uint32, error) {
	id := c.next
	c.next += 2
	return id, sendHead(c.Framer, id, block, end)
}

// sendHead sends a header block in as many frames as it takes.
func sendHead(f *http2.Framer, id uint32, block []byte, end bool) error {
	first := min(len(block), maxFrame)
	rest := block[first:]
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:first], EndHeaders: len(rest) == 0, EndStream: end})
	for err == nil && len(rest) > 0 {
		next := rest[:min(len(rest), maxFrame)]
		rest = rest[len(next):]
		err = f.WriteContinuation(id, len(rest) == 0, next)
	}
	return err
}

// linger waits until the host ends the connection, or the attack is over.
func (c *conn) linger() error {
	if err := c.flush(); err != nil {
		return errGone
	}
	select {
	case <-c.gone:
		return errGone
	case <-c.ctx.Done():
		return nil
	}
}

// flood writes frames as fast as they go, until it is over, and comes again whenever it was cut off. The first call of a
// step on a connection has 0.
func flood(step func(c *conn, i uint32) error, settings ...http2.Setting) func(context.Context, *attack) error {
	once := floodOnce(step, settings...)
	return func(ctx context.Context, a *attack) error {
		for first := true; ; first = false {
			err := once(ctx, a)
			switch {
			case ctx.Err() != nil, errors.Is(err, errEnough), err != nil && first && !errors.Is(err, errGone):
				return err
			case err != nil && !errors.Is(err, errGone): // it comes too fast
				rest(ctx)
			}
		}
	}
}

// floodOnce is flood until it was cut off.
func floodOnce(step func(c *conn, i uint32) error, settings ...http2.Setting) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		c, err := a.connect(ctx, true, settings...)
		if err != nil {
			return err
		}
		defer c.close()
		stop := context.AfterFunc(ctx, func() { _ = c.tls.SetWriteDeadline(time.Now()) })
		defer stop()
		for i := uint32(0); ; i++ {
			if err := c.more(); err != nil {
				return err
			}
			if err := step(c, i); err != nil {
				return c.lost(err)
			}
		}
	}
}

// lost turns an error of writing into the end of the connection, where that is what it is.
func (c *conn) lost(err error) error {
	if c.ctx.Err() != nil {
		return nil
	}
	wait := time.NewTimer(patient) // for the reader to see the reason
	defer wait.Stop()
	select {
	case <-c.gone:
		return errGone
	case <-wait.C:
		return err
	}
}

// slowly is flood with a pause after each step.
func slowly(pause time.Duration, step func(c *conn, i uint32) error) func(context.Context, *attack) error {
	return flood(func(c *conn, i uint32) error {
		if err := step(c, i); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
		t := time.NewTimer(pause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.gone:
		case <-c.ctx.Done():
		}
		return nil
	})
}
