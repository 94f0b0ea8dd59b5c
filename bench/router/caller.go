package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

var errCall = errors.New("call failed")

// caller makes the calls of all ways.
type caller struct {
	identity *connectplugin.Client
	ways     map[string]roundTripper
	service  string // base URL of the service, as the client knows it
	held     []*bidiStream
}

// roundTripper sends one request; connect.HTTPClient is this, too.
type roundTripper interface {
	Do(r *http.Request) (*http.Response, error)
}

// serveCaller is the process that calls.
func serveCaller(ctx context.Context, dir, hostURL string) error {
	authority, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	c := &caller{ways: map[string]roundTripper{}}
	for _, way := range []string{wayDirect, wayBare, wayRouter} {
		transport, err := newTransport(authority)
		if err != nil {
			return err
		}
		if way == wayRouter { // the host knows the caller by its token alone
			transport.TLSClientConfig = authority.ClientTLS()
		}
		c.ways[way] = &http.Client{Transport: transport}
	}
	c.identity, err = connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: hostURL, SelfID: callerID, SelfVersion: version, Secret: []byte(secret), TLS: authority.ClientTLS(),
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: serviceType}}},
	})
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if err := c.identity.Connect(ctx); err != nil {
		return errors.Join(fmt.Errorf("connect: %w", err), c.identity.Close())
	}
	provider, err := c.findProvider(ctx)
	if err == nil {
		err = c.obeyWithService(ctx, provider)
	}
	c.release()
	return errors.Join(err, c.identity.Close())
}

// obeyWithService has a connection to the service meanwhile.
func (c *caller) obeyWithService(ctx context.Context, provider string) error {
	conn, err := c.identity.Service(ctx, serviceType, version)
	if err != nil {
		return fmt.Errorf("service: %w", err)
	}
	c.ways[wayUser], c.service = conn.HTTPClient(), conn.BaseURL()
	defer conn.Close()
	return obey(ctx, provider, c.obey)
}

func (c *caller) obey(ctx context.Context, o order) (report, error) {
	switch o.Do {
	case doLoad:
		return c.load(ctx, o)
	case doHold:
		return report{}, c.hold(ctx, o)
	case doRelease:
		c.release()
		return report{}, nil
	default:
		return report{}, fmt.Errorf("%w: %q", errOrder, o.Do)
	}
}

// load makes calls for a time, so many at once.
func (c *caller) load(ctx context.Context, o order) (report, error) {
	operate, ok := operations[o.Scenario]
	if !ok {
		return report{}, fmt.Errorf("%w: scenario %q", errOrder, o.Scenario)
	}
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		samples []time.Duration
		errs    []error
	)
	start := time.Now()
	end := start.Add(o.Time)
	for range o.Callers {
		wg.Go(func() {
			own, err := operate(&way{ctx: ctx, caller: c, transport: c.ways[o.Way], name: o.Way, target: c.target(o)}, end)
			mu.Lock()
			defer mu.Unlock()
			samples = append(samples, own...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if len(errs) > 0 {
		return report{}, fmt.Errorf("%s, %s: %d of %d callers: %w", o.Way, o.Scenario, len(errs), o.Callers, errs[0])
	}
	slices.Sort(samples)
	return report{
		Operations: len(samples), Elapsed: elapsed, Median: quantile(samples, middle), Slow: quantile(samples, slowest),
	}, nil
}

// target is the base URL of an order's way.
func (c *caller) target(o order) string {
	if o.Way == wayUser {
		return c.service
	}
	return o.Target
}

// way is one caller on its way to the provider.
type way struct {
	ctx       context.Context //nolint:containedctx // of the load that the caller is a part of
	caller    *caller
	transport roundTripper
	name      string
	target    string
}

// post starts a call.
func (w *way) post(path, contentType string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(w.ctx, http.MethodPost, w.target+path, body)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	r.Header["Content-Type"] = []string{contentType}
	r.Header["Connect-Protocol-Version"] = []string{"1"}
	if w.name == wayRouter {
		r.Header["X-Plugin-Runtime-Id"] = []string{w.caller.identity.RuntimeID()}
		r.Header["Authorization"] = []string{"Bearer " + w.caller.identity.RuntimeToken()}
	}
	resp, err := w.transport.Do(r)
	if err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w: status %d: %s", errCall, resp.StatusCode, text)
	}
	return resp, nil
}

// operations are the scenarios by name. Each makes operations of one caller until
// the end and returns how long they took.
var operations = map[string]func(w *way, end time.Time) ([]time.Duration, error){
	scenarioSmall:  func(w *way, end time.Time) ([]time.Duration, error) { return w.unary(smallMessage, end) },
	scenarioLarge:  func(w *way, end time.Time) ([]time.Duration, error) { return w.unary(largeMessage, end) },
	scenarioServer: (*way).serverStreams,
	scenarioBidi:   (*way).roundTrips,
}

// timed repeats an operation until the end, and does it once however late it begins.
func timed(end time.Time, operation func() error) ([]time.Duration, error) {
	var samples []time.Duration
	for last := time.Now(); len(samples) == 0 || last.Before(end); {
		if err := operation(); err != nil {
			return samples, err
		}
		now := time.Now()
		samples = append(samples, now.Sub(last))
		last = now
	}
	return samples, nil
}

func (w *way) unary(size int, end time.Time) ([]time.Duration, error) {
	message := make([]byte, size)
	answer := make([]byte, size+1)
	return timed(end, func() error {
		resp, err := w.post(unaryCall, unaryType, bytes.NewReader(message))
		if err != nil {
			return err
		}
		n, err := io.ReadFull(resp.Body, answer)
		_ = resp.Body.Close()
		if n != size || !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: %d bytes, %w", errCall, n, err)
		}
		return nil
	})
}

func (w *way) serverStreams(end time.Time) ([]time.Duration, error) {
	message, want := envelope(), streamLength*(envelopeHead+smallMessage)+len(ending())
	return timed(end, func() error {
		resp, err := w.post(serverCall, streamType, bytes.NewReader(message))
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if n != int64(want) || err != nil {
			return fmt.Errorf("%w: %d bytes, want %d, %w", errCall, n, want, err)
		}
		return nil
	})
}

func (w *way) roundTrips(end time.Time) ([]time.Duration, error) {
	s, err := w.openBidi()
	if err != nil {
		return nil, err
	}
	samples, err := timed(end, s.roundTrip)
	return samples, errors.Join(err, s.close())
}

// bidiStream is an open bidirectional stream.
type bidiStream struct {
	send    *io.PipeWriter
	receive io.ReadCloser
	message []byte
}

func (w *way) openBidi() (*bidiStream, error) {
	r, send := io.Pipe()
	resp, err := w.post(bidiCall, streamType, r) //nolint:bodyclose // by the stream's close
	if err != nil {
		return nil, err
	}
	return &bidiStream{send: send, receive: resp.Body, message: envelope()}, nil
}

func (s *bidiStream) roundTrip() error {
	if _, err := s.send.Write(s.message); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if _, err := io.ReadFull(s.receive, s.message); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return nil
}

// close ends the stream and demands that the provider does, too.
func (s *bidiStream) close() error {
	_ = s.send.Close()
	last, err := io.ReadAll(s.receive)
	_ = s.receive.Close()
	if err != nil || !bytes.Equal(last, ending()) {
		return fmt.Errorf("%w: stream ended with %q, %w", errCall, last, err)
	}
	return nil
}

// hold opens streams, on each of which one message went there and back.
func (c *caller) hold(ctx context.Context, o order) error {
	w := &way{ctx: ctx, caller: c, transport: c.ways[o.Way], name: o.Way, target: c.target(o)}
	for range o.Callers {
		s, err := w.openBidi()
		if err != nil {
			return err
		}
		c.held = append(c.held, s)
		if err := s.roundTrip(); err != nil {
			return err
		}
	}
	return nil
}

func (c *caller) release() {
	for _, s := range c.held {
		_ = s.close()
	}
	c.held = nil
}
