package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/link"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// controlTimeout bounds a call to a plugin's control services.
const controlTimeout = 10 * time.Second

// pluginService reaches a plugin's service in the protocol that the plugin understands. It begins in
// Connect, which a server of gRPC alone refuses before it looks at the call.
type pluginService[C any] struct {
	inConnect C
	inGRPC    func() C     // made when it is needed
	alone     *atomic.Bool // the plugin understands gRPC alone
}

func newPluginService[C any](made func(connect.HTTPClient, string, ...connect.ClientOption) C, url string, client connect.HTTPClient) pluginService[C] {
	if isNil(client) {
		client = noHTTPClient{}
	}
	alone := new(atomic.Bool)
	// An answer that is larger than that is inflated to its end by Connect, to say how large it was.
	most := connect.WithClientOptions(connect.WithReadMaxBytes(maxHealthAnswer), connect.WithAcceptCompression(compressionGzip, nil, nil))
	return pluginService[C]{
		inConnect: made(listeningClient{client, alone}, url, most), alone: alone,
		inGRPC: sync.OnceValue(func() C { return made(client, url, connect.WithGRPC(), most) }),
	}
}

// askPlugin makes a call, which has controlTimeout.
func askPlugin[C, Req, Res any](
	ctx context.Context, p pluginService[C], m *Req, call func(C, context.Context, *connect.Request[Req]) (*connect.Response[Res], error),
) (*Res, error) {
	mustBeMade("the client of a plugin", p.alone != nil, "NewPluginControlClient or NewPluginIdentityClient")
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	if !p.alone.Load() {
		if resp, err := call(p.inConnect, ctx, connect.NewRequest(m)); err == nil {
			return resp.Msg, nil
		} else if !p.alone.Load() {
			return nil, err
		}
	}
	resp, err := call(p.inGRPC(), ctx, connect.NewRequest(m))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// noHTTPClient is the one of whoever brought none.
type noHTTPClient struct{}

var errNoHTTPClient = errors.New("no HTTP client was given: write one that shows the host's certificate to the plugin")

// Do says so.
func (noHTTPClient) Do(*http.Request) (*http.Response, error) { return nil, errNoHTTPClient }

// listeningClient notes that a call in Connect was answered as a server of gRPC alone does.
type listeningClient struct {
	connect.HTTPClient

	alone *atomic.Bool
}

// Do sends a request.
func (c listeningClient) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.HTTPClient.Do(r)
	if err == nil && proxy.SpeaksGRPCAlone(resp.StatusCode, resp.Header.Get("Content-Type")) {
		c.alone.Store(true)
	}
	return resp, err
}

// PluginControlClient calls a plugin's PluginControl service, which serves its host alone, in
// Connect or, where the plugin understands that alone, in gRPC. It is safe for concurrent use.
type PluginControlClient struct {
	plugin pluginService[connectpluginv1connect.PluginControlClient]
}

// NewPluginControlClient makes a client for the plugin at a base URL. The HTTP client has to
// show the host's certificate. Each call takes at most 10 s.
func NewPluginControlClient(endpoint string, httpClient connect.HTTPClient) *PluginControlClient {
	return &PluginControlClient{newPluginService(connectpluginv1connect.NewPluginControlClient, endpoint, httpClient)}
}

// GetHealth asks the plugin how it is.
func (c *PluginControlClient) GetHealth(ctx context.Context) (*connectpluginv1.GetHealthResponse, error) {
	return askPlugin(ctx, c.plugin, &connectpluginv1.GetHealthRequest{}, connectpluginv1connect.PluginControlClient.GetHealth)
}

// Shutdown asks the plugin to end within a grace period, zero for its own, and reports
// whether it will. It returns before the plugin has ended.
func (c *PluginControlClient) Shutdown(ctx context.Context, gracePeriodSeconds int32, reason string) (bool, error) {
	resp, err := askPlugin(ctx, c.plugin, &connectpluginv1.ShutdownRequest{
		GracePeriodSeconds: gracePeriodSeconds, Reason: reason,
	}, connectpluginv1connect.PluginControlClient.Shutdown)
	return resp.GetAcknowledged(), err
}

// PluginIdentityClient calls a plugin's PluginIdentity service, which serves its host alone, in
// Connect or, where the plugin understands that alone, in gRPC. It is safe for concurrent use.
type PluginIdentityClient struct {
	plugin pluginService[connectpluginv1connect.PluginIdentityClient]
}

// NewPluginIdentityClient makes a client for the plugin at a base URL. The HTTP client has to
// show the host's certificate, and must not be one in plaintext: the identity is a secret.
// Each call takes at most 10 s.
func NewPluginIdentityClient(baseURL string, httpClient connect.HTTPClient) *PluginIdentityClient {
	return &PluginIdentityClient{newPluginService(connectpluginv1connect.NewPluginIdentityClient, baseURL, httpClient)}
}

// GetPluginInfo asks the plugin what it is. The answer is a claim and no proof.
func (c *PluginIdentityClient) GetPluginInfo(ctx context.Context) (*connectpluginv1.GetPluginInfoResponse, error) {
	return askPlugin(ctx, c.plugin, &connectpluginv1.GetPluginInfoRequest{}, connectpluginv1connect.PluginIdentityClient.GetPluginInfo)
}

// SetRuntimeIdentity gives the plugin an identity at the host with that URL. A plugin that
// does not take it is an error.
func (c *PluginIdentityClient) SetRuntimeIdentity(ctx context.Context, runtimeID string, runtimeToken string, hostURL string) error {
	return c.set(ctx, runtimeID, runtimeToken, hostURL, time.Time{})
}

func (c *PluginIdentityClient) set(ctx context.Context, runtimeID, runtimeToken, hostURL string, expires time.Time) error {
	m := &connectpluginv1.SetRuntimeIdentityRequest{RuntimeId: runtimeID, RuntimeToken: runtimeToken, HostUrl: hostURL}
	if !expires.IsZero() {
		m.TokenExpiresAt = timestamppb.New(expires)
	}
	resp, err := askPlugin(ctx, c.plugin, m, connectpluginv1connect.PluginIdentityClient.SetRuntimeIdentity)
	if err != nil {
		return err
	}
	if !resp.GetAcknowledged() {
		return errorf(connect.CodeFailedPrecondition, "the plugin did not take the identity")
	}
	return nil
}

// providerClient is an HTTP client in the host's own process that reaches one plugin the way
// that routed calls take: with its identity verified, counted, and broken off where the
// plugin ends.
type providerClient struct {
	router *ServiceRouter
	// target returns the runtime id of the plugin that is called, and the path there.
	target func(path string) (runtimeID, there string, err error)
	last   bool            // the plugin is told that no other call follows
	over   *routedProvider // connections of its own; nil for those of routed calls
}

// Do sends a request to the plugin. Scheme and host of its URL are ignored. What the plugin
// certainly did not see is sent once more, to the one that took its place.
func (c *providerClient) Do(r *http.Request) (*http.Response, error) {
	in := *r
	if in.Body == nil {
		in.Body = http.NoBody
	} else if in.ContentLength == 0 && in.Body != http.NoBody {
		in.ContentLength = -1
	}
	in.ProtoMajor = 2
	var result proxy.Result
	const attempts = 2
	for range attempts {
		p, path, err := c.provider(r.URL.Path)
		if err != nil {
			result = proxy.Result{Class: proxy.ClassUnavailable, Err: err}
			break
		}
		if p.memory {
			return heardWhole(c.inMemory(p, &in, path))
		}
		var resp *http.Response
		if resp, result = p.pool.RoundTrip(&in, proxy.Call{Path: path, Last: c.last}); resp != nil {
			resp.Body = &remoteBody{resp.Body}
			return heardWhole(resp, nil)
		}
		if !result.Retryable {
			break
		}
	}
	_ = in.Body.Close()
	return nil, notCalled(r.Context(), result.Err)
}

// heardWhole returns a response, unless it is a refusal that breaks in the middle.
func heardWhole(resp *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	if err := link.Refusal(resp); err != nil {
		return nil, err
	}
	return resp, nil
}

func (c *providerClient) provider(path string) (*routedProvider, string, error) {
	runtimeID, there, err := c.target(path)
	if err != nil {
		return nil, "", err
	}
	if c.over != nil {
		return c.over, there, nil
	}
	p, err := c.router.providerAt(c.router.handshake.hub, runtimeID)
	return p, there, err
}

// notCalled says why there is no response.
func notCalled(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	return connect.NewError(connect.CodeUnavailable, fmt.Errorf("call the plugin: %w", err))
}

// remoteBody is the body of a response that comes over the network.
type remoteBody struct{ io.ReadCloser }

// Read implements io.Reader. A call that broke ends with the code that a plugin which called
// it would get.
func (b *remoteBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if broken, ok := errors.AsType[*proxy.BrokenError](err); ok {
		code, text := classify(broken.Class, broken.Err)
		err = connect.NewError(code, fmt.Errorf("%w: %w", errBrokenOff, text))
	}
	return n, err
}

// inMemory calls a plugin in this process.
func (c *providerClient) inMemory(p *routedProvider, r *http.Request, path string) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	in := r.WithContext(ctx)
	w := newReply(cancel, r.Body)
	go func() { w.end(p.pool.Forward(w, in, proxy.Call{Path: path, Ending: ending})) }()
	select {
	case <-w.ready:
		return w.response(r)
	case <-r.Context().Done(): // a handler that does not look at its context holds nobody up
	case <-w.cut:
	}
	_ = r.Body.Close() // at once: what Connect's client closes when it gets no answer looks like the end of a stream to who reads it
	cancel(nil)
	return nil, notCalled(r.Context(), errBrokenOff)
}

var errBrokenOff = errors.New("the plugin broke the call off")

// keptReply is how much of a response is kept before whoever called gets it. One that is
// complete by then, as most are, is handed over as a whole.
const keptReply = 64 << 10

// reply turns what is written as a response into the response that a client gets. Whoever
// writes hands it over once, by closing ready: when it is complete, when more of it has to be
// waited for, or when it is more than is kept.
type reply struct {
	// Fixed at creation.
	header http.Header
	cancel context.CancelCauseFunc
	upload io.Closer
	ready  chan struct{}
	cut    chan struct{} // closed when no more is written

	// Of whoever writes until ready is closed, and of nobody then.
	kept    []byte
	status  int         // 0 before there is a head
	sent    http.Header // as it was at the head
	pipe    *io.PipeWriter
	rest    *io.PipeReader // nil where kept is all
	trailer http.Header
	err     error // why there is no response, or no more of it

	broken atomic.Bool // cut is closed
}

func newReply(cancel context.CancelCauseFunc, upload io.Closer) *reply {
	return &reply{
		header: http.Header{}, cancel: cancel, upload: upload, ready: make(chan struct{}), cut: make(chan struct{}), trailer: http.Header{},
	}
}

// Header implements http.ResponseWriter.
func (w *reply) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *reply) WriteHeader(status int) {
	if w.status == 0 {
		w.status, w.sent = status, w.header.Clone()
	}
}

// Write implements http.ResponseWriter.
func (w *reply) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.pipe == nil {
		if !w.broken.Load() && len(w.kept)+len(p) <= keptReply {
			w.kept = append(w.kept, p...)
			return len(p), nil
		}
		w.handOver()
	}
	return w.pipe.Write(p) //nolint:wrapcheck // the reader's own error
}

// FlushError implements the flushing of http.ResponseController: nothing is kept any longer.
func (w *reply) FlushError() error {
	if w.status != 0 && w.pipe == nil {
		w.handOver()
	}
	return nil
}

// SetWriteDeadline breaks the response off where the deadline has passed, which is how the
// proxy says that it is not whole. A later one gives a slow reader so long.
func (w *reply) SetWriteDeadline(t time.Time) error {
	if wait := time.Until(t); wait > 0 {
		time.AfterFunc(wait, w.breakOff)
		return nil
	}
	w.breakOff()
	return nil
}

// SetReadDeadline ends the request's body where the deadline has passed.
func (w *reply) SetReadDeadline(t time.Time) error {
	if w.upload != nil && time.Until(t) <= 0 {
		_ = w.upload.Close()
	}
	return nil
}

// EnableFullDuplex says that reading and writing at the same time is possible.
func (w *reply) EnableFullDuplex() error { return nil }

// handOver hands over what there is, and the rest as it comes.
func (w *reply) handOver() {
	w.rest, w.pipe = io.Pipe()
	close(w.ready)
	if w.broken.Load() { // before whoever broke it off could see the pipe
		_ = w.pipe.CloseWithError(errBrokenOff)
	}
}

// breakOff may be called by anybody at any time.
func (w *reply) breakOff() {
	if !w.broken.Swap(true) {
		close(w.cut)
	}
	select {
	case <-w.ready:
		if w.pipe != nil {
			_ = w.pipe.CloseWithError(errBrokenOff)
		}
	default: // handOver and end look
	}
}

// end takes over the result of the call.
func (w *reply) end(result proxy.Result) {
	for name, values := range w.header {
		if inner, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			w.trailer[http.CanonicalHeaderKey(inner)] = values
		}
	}
	err := io.EOF
	switch {
	case result.Class != proxy.ClassOK:
		code, text := classify(result.Class, result.Err)
		err = connect.NewError(code, fmt.Errorf("%w: %w", errBrokenOff, text))
	case w.broken.Load():
		err = connect.NewError(connect.CodeUnavailable, errBrokenOff)
	}
	if w.pipe != nil {
		_ = w.pipe.CloseWithError(err)
	} else {
		if w.err = err; w.status == 0 {
			w.err = result.Err
		}
		close(w.ready)
	}
	if result.Class != proxy.ClassOK {
		w.cancel(nil) // otherwise the reader ends the call's context with the body
	}
}

// response returns the response, or why there is none.
func (w *reply) response(r *http.Request) (*http.Response, error) {
	if w.status == 0 {
		w.cancel(nil)
		return nil, notCalled(r.Context(), w.err)
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: w.sent, Trailer: w.trailer, Body: &replyBody{reply: w}, ContentLength: -1, Request: r,
	}, nil
}

// replyBody is the body of a response: what was kept, and then the rest. Closing it ends the
// call.
type replyBody struct {
	reply *reply
	read  int // of what was kept
}

// Read implements io.Reader.
func (b *replyBody) Read(p []byte) (int, error) {
	w := b.reply
	if n := copy(p, w.kept[b.read:]); n > 0 || len(p) == 0 {
		b.read += n
		return n, nil
	}
	if w.rest == nil {
		return 0, w.err
	}
	return w.rest.Read(p) //nolint:wrapcheck // the writer's own error
}

// Close implements io.Closer.
func (b *replyBody) Close() error {
	b.reply.cancel(nil)
	if b.reply.rest != nil {
		_ = b.reply.rest.Close() // it has no error
	}
	return nil
}
