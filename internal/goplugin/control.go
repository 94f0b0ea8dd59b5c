package goplugin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/masegraye/connect-plugin-go/internal/link"
)

// The services that go-plugin adds to each plugin, with what the health service calls it.
const (
	procedureHealth   = "/grpc.health.v1.Health/Check"
	procedureStdio    = "/plugin.GRPCStdio/StreamStdio"
	procedureBroker   = "/plugin.GRPCBroker/StartStream"
	procedureShutdown = "/plugin.GRPCController/Shutdown"
	healthName        = "plugin"
	healthServing     = 1
)

// ErrNotServing says that a plugin answers, and that it does not serve.
var ErrNotServing = errors.New("the plugin answers that it does not serve")

const (
	dialTimeout    = 10 * time.Second
	maxHeaderBytes = 256 << 10 // of an answer, as of any plugin's
	// The process shows whether the plugin lives: one that stands still for a while, as in a debugger, says nothing.
	silence = 24 * time.Hour
)

// Control calls the services that go-plugin adds to each plugin, over a connection of its own. A plugin that sends more
// on it than anything explains is cut off. It is safe for concurrent use. End it with Close.
type Control struct {
	link *link.Pool
}

// NewControl returns the control of a plugin. It connects with the first call.
func NewControl(h *Hello, cfg *tls.Config) *Control {
	return &Control{link: link.New(link.Config{
		Dial: func(ctx context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
			raw, err := h.Dial(ctx)
			if err != nil {
				return nil, err
			}
			conn := tls.Client(below(raw), cfg)
			if err := conn.HandshakeContext(ctx); err != nil {
				return nil, errors.Join(err, raw.Close())
			}
			return conn, nil
		},
		DialTimeout: dialTimeout, MaxConns: 1, MaxHeaderBytes: maxHeaderBytes, PingAfter: silence, PingTimeout: silence,
		Lost: func(error) {}, Failed: func(error) {},
	})}
}

// Close ends the connection, and the calls in flight.
func (c *Control) Close() { c.link.Close() }

// Health asks the plugin whether it serves. ErrNotServing is its own answer.
func (c *Control) Health(ctx context.Context) error {
	request := protowire.AppendTag(nil, 1, protowire.BytesType)
	request = protowire.AppendString(request, healthName)
	var answer []byte
	err := c.call(ctx, procedureHealth, frame(request), func(m []byte) { answer = m })
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	status, err := varintField(answer, 1)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	if status != healthServing {
		return ErrNotServing
	}
	return nil
}

// Shutdown has the plugin end at once, with its calls in flight. The plugin breaks this call
// off, too, so that its error says nothing: what counts is the end of the process.
func (c *Control) Shutdown(ctx context.Context) {
	_ = c.call(ctx, procedureShutdown, frame(nil), func([]byte) {})
}

// Output passes on what the plugin prints until it ends, or ctx does. take must not keep
// what it is given. It has to run for as long as the plugin lives.
func (c *Control) Output(ctx context.Context, take func(stderr bool, data []byte)) error {
	const channelStderr = 2
	err := c.call(ctx, procedureStdio, frame(nil), func(m []byte) {
		channel, errChannel := varintField(m, 1)
		data, errData := bytesField(m, 2)
		if errChannel == nil && errData == nil {
			take(channel == channelStderr, data)
		}
	})
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}

// Callbacks tells of each connection that the plugin offers over its broker, to be called back on
// it, until the plugin ends or ctx does. Without it the plugin's offers would stand still. Nobody
// takes them up.
func (c *Control) Callbacks(ctx context.Context, offered func()) error {
	open, end := io.Pipe() // the plugin closes its broker with the end of the request
	defer func() { _ = end.Close() }()
	if err := c.call(ctx, procedureBroker, open, func([]byte) { offered() }); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return nil
}

// call makes one call with a request, and hands over each message of the response.
func (c *Control) call(ctx context.Context, procedure string, request io.Reader, take func([]byte)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+serverName+procedure, request)
	if err != nil {
		return err //nolint:wrapcheck // it is our own URL
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := c.link.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: HTTP status %d", errAnswer, resp.StatusCode)
	}
	for {
		m, err := readFrame(resp.Body)
		switch {
		case errors.Is(err, io.EOF):
			return status(resp)
		case err != nil:
			return err
		}
		take(m)
	}
}
