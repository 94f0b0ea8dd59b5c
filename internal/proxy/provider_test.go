package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// played is a provider of which a test plays every frame, over pipes, so that it
// works in a bubble of time.
type played struct {
	t        *testing.T
	settings []http2.Setting
	// on handles the frames that are not for the connection.
	on    func(c *playedConn, f http2.Frame)
	dials atomic.Int64
	stays atomic.Bool // of a test: calls are not answered for now
	wg    sync.WaitGroup
}

// playedConn is the provider's side of one connection.
type playedConn struct {
	*http2.Framer

	nc    net.Conn
	dial  int64
	mu    sync.Mutex
	block bytes.Buffer
	enc   *hpack.Encoder
}

// newPlayed returns the provider and a pool for it.
func newPlayed(t *testing.T, pd *played, change func(*proxy.Config)) *proxy.Provider {
	t.Helper()
	pd.t = t
	cfg := proxy.Config{Endpoint: endpointOf(t, "http://127.0.0.1:1"), Dial: pd.connect}
	if change != nil {
		change(&cfg)
	}
	t.Cleanup(pd.wg.Wait)
	return newProvider(t, cfg)
}

func (pd *played) connect(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	c := &playedConn{Framer: http2.NewFramer(server, server), nc: server, dial: pd.dials.Add(1)}
	c.enc = hpack.NewEncoder(&c.block)
	pd.wg.Go(func() { pd.serve(c) })
	return client, nil
}

func (pd *played) serve(c *playedConn) {
	defer c.nc.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.nc, preface); err != nil {
		return
	}
	pd.wg.Go(func() { c.locked(func() { _ = c.WriteSettings(pd.settings...) }) })
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() && pd.on != nil {
				pd.on(c, f)
			}
		default:
			if pd.on != nil {
				pd.on(c, f)
			}
		}
	}
}

// locked runs f alone.
func (c *playedConn) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// answer answers a stream with a status and nothing else.
func (c *playedConn) answer(stream uint32, status string) {
	c.locked(func() {
		c.block.Reset()
		_ = c.enc.WriteField(hpack.HeaderField{Name: ":status", Value: status})
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: true})
	})
}

// ask makes a call without a body.
func ask(ctx context.Context, p *proxy.Provider, how proxy.Call) proxy.Result {
	how.Path = "/a"
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", http.NoBody)
	r.Header.Set("Content-Type", "application/proto")
	return p.Forward(httptest.NewRecorder(), r, how)
}

var errEnough = errors.New("enough")
