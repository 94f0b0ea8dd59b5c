package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/link"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/replay"
)

// destination is where the calls of one kind go.
type destination interface {
	// aim completes a request before each attempt.
	aim(ctx context.Context, r *http.Request, id identity) error
	// mend obtains what the host refused, and reports whether to try again with that.
	mend(ctx context.Context, id identity) (again bool, err error)
}

// hostTransport sends requests to the host with the client's identity.
type hostTransport Client

var (
	errForeignURL = errors.New("request is not for the host; credentials stay here")
	errHostLost   = errors.New("the connection to the host was lost")
)

// Do sends a request to the host.
func (t *hostTransport) Do(r *http.Request) (*http.Response, error) {
	return (*Client)(t).do(r, t)
}

// callerTransport is hostTransport for callers of other versions of Connect, too.
type callerTransport Client

// Do sends a request to the host.
func (t *callerTransport) Do(r *http.Request) (*http.Response, error) {
	if err := checkRequest(r); err != nil {
		return nil, err
	}
	resp, err := (*hostTransport)(t).Do((*Client)(t).below(r))
	if err != nil {
		return answered(r, err)
	}
	return resp, nil
}

// connectingTransport is hostTransport that connects a client which nobody connected.
type connectingTransport Client

// Do sends a request to the host.
func (t *connectingTransport) Do(r *http.Request) (*http.Response, error) {
	c := (*Client)(t)
	if err := c.identifiable(); err != nil {
		return nil, err
	}
	if _, err := c.connected(r.Context()); err != nil {
		return nil, err
	}
	return c.do(r, (*hostTransport)(c))
}

func (t *hostTransport) aim(context.Context, *http.Request, identity) error { return nil }

func (t *hostTransport) mend(ctx context.Context, id identity) (bool, error) {
	return true, unrenewed((*Client)(t).renewed(ctx, id, false))
}

// unknownHost stands for the host in requests that are built before it is known.
const (
	unknownHost    = "not-connected.invalid"
	unknownHostURL = "https://" + unknownHost
	assignedURL    = "https://assigned.invalid" // before a host assigns an identity, and says where it is
)

// maxAttempts bounds how often a request is made of which the host did nothing.
const maxAttempts = 3

// do makes a request with the client's identity, and makes it once more where the host
// did nothing with it: where it refused the credentials before it read anything, and
// where the connection ended before the request was looked at.
func (c *Client) do(r *http.Request, to destination) (*http.Response, error) {
	if !c.made() {
		return nil, errUnmade
	}
	body := replay.New(nil, nil)
	if r.Body != nil && r.Body != http.NoBody {
		body = replay.New(r.Body, r.GetBody)
	}
	for n := 1; ; n++ {
		a := &attempt{client: c, request: r, body: body, to: to}
		a.run()
		again := c.life.Err() == nil && a.again()
		if a.done != nil {
			a.done()
		}
		if again && n < maxAttempts {
			continue
		}
		if again && a.err == nil { // the host lost each identity at once
			a.err = errRenewing
		}
		if a.err != nil {
			_ = body.Close()
			return nil, a.marked(c.failure(r.Context(), a.err))
		}
		body.Settle()
		return a.resp, nil
	}
}

// attempt is a request made once.
type attempt struct {
	client  *Client
	request *http.Request // the caller's, which stays as it is
	body    *replay.Body
	to      destination

	id   identity // that it was made with
	resp *http.Response
	err  error
	sent bool   // so that something may have been done with it
	done func() // lets those go on who wait for the outcome
}

func (a *attempt) run() {
	ctx := a.request.Context()
	if a.id, a.done, a.err = a.client.present(ctx, a.request.URL); a.err == nil {
		a.resp, a.err = a.send(ctx) //nolint:bodyclose // the caller's, or again closes it
	}
	if a.err == nil && a.ofIdentity() && !refusedCredential(a.resp) {
		a.client.answered(a.id)
	}
}

// ofIdentity reports whether the host's answer says something of the client's identity. Below a capability's endpoint it is
// about a grant, which with [Client.HTTPClient] is the caller's.
func (a *attempt) ofIdentity() bool {
	_, granted := a.to.(*grantDestination)
	return granted || !strings.HasPrefix(a.request.URL.Path, pathCapabilities)
}

// again mends what the host refused, if it did, and reports whether to try again.
func (a *attempt) again() bool {
	if a.err != nil {
		return (link.Unprocessed(a.err) || errors.Is(a.err, errMoved)) && a.body.Replayable()
	}
	if !refusedCredential(a.resp) || !a.ofIdentity() || a.id.token == "" {
		return false
	}
	again, err := a.to.mend(a.request.Context(), a.id)
	if err == nil && (!again || !a.body.Replayable()) {
		return false
	}
	_ = a.resp.Body.Close()
	a.err, a.sent = err, false
	return err == nil
}

// send completes the request and sends it.
func (a *attempt) send(ctx context.Context) (*http.Response, error) {
	r := a.request.WithContext(ctx)
	target := *r.URL
	r.URL = &target
	if a.client.link == nil {
		r.GetBody = nil // the attempts are the client's
	}
	if r.Header = r.Header.Clone(); r.Header == nil {
		r.Header = http.Header{}
	}
	if a.id.token != "" {
		r.Header[headerRuntimeID] = []string{a.id.runtimeID}
		if !strings.HasPrefix(target.Path, pathCapabilities) { // there a grant is shown
			r.Header[headerAuthorization] = []string{bearerPrefix + a.id.token}
		}
	}
	err := a.to.aim(ctx, r, a.id)
	if err == nil {
		err = a.client.direct(r, a.id)
	}
	if err == nil {
		r.Body, err = a.body.Attempt()
	}
	if err != nil {
		return nil, err
	}
	noteIdentity(ctx, a.id)
	a.sent = true
	return a.client.send(r)
}

// send makes a request over a connection to the host.
func (c *Client) send(r *http.Request) (*http.Response, error) {
	if c.link == nil {
		return c.sendForeign(r)
	}
	resp, err := c.link.RoundTrip(r)
	if errors.Is(err, link.ErrElsewhere) {
		c.leaveOthers(r.URL)
	}
	return c.heard(r.Context(), resp, err)
}

// heard returns what a request over one of the client's connections got.
func (c *Client) heard(ctx context.Context, resp *http.Response, err error) (*http.Response, error) {
	if err == nil {
		err = link.Refusal(resp)
	}
	if err != nil {
		return nil, c.linkError(ctx, err)
	}
	noteBody(ctx, resp.Body)
	resp.Body = &linkBody{ReadCloser: resp.Body, client: c, ctx: ctx}
	return resp, nil
}

// sendForeign makes a request with the configured HTTP client.
func (c *Client) sendForeign(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	resp, err := c.transport.Do(r.WithContext(ctx))
	if err == nil {
		err = link.Refusal(resp)
	}
	if err != nil {
		cancel()
		if strings.Contains(err.Error(), foreignTooLarge) {
			err = headersTooLarge(err)
		}
		return nil, err
	}
	resp.Body = &foreignBody{ReadCloser: resp.Body, ctx: ctx, end: cancel}
	return resp, nil
}

// foreignTooLarge is what net/http says of a request whose header is larger than the host takes. It has no error for it.
const foreignTooLarge = "request header list larger than peer's advertised limit"

func headersTooLarge(err error) error {
	return errorf(connect.CodeResourceExhausted, "the headers of the request are larger than Limits.MaxHeaderBytes of the host: %w", err)
}

// linkError says what the failure of a request means for its caller: the loss of the
// host, and what the host said with a reset, as gRPC has it (PROTOCOL-HTTP2.md,
// "Errors").
func (c *Client) linkError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if code, ok := link.Reset(err); ok && !link.Unprocessed(err) {
		if deadline, ok := ctx.Deadline(); ok && code == http2.ErrCodeCancel && !time.Now().Before(deadline) {
			return context.DeadlineExceeded // the host's clock was first
		}
		return connect.NewError(connect.Code(proxy.CodeOf(err)), err)
	}
	switch {
	case link.TooLarge(err):
		return headersTooLarge(err)
	case proxy.TooManyFields(err):
		return errorf(connect.CodeResourceExhausted, "the headers and trailers of the answer are more than a client takes: %w", err)
	case proxy.AnswerTooLarge(err):
		return errorf(connect.CodeResourceExhausted,
			"the headers or trailers of the answer are larger than a client takes, which is 256 KiB: %w", err)
	}
	if link.Lost(err) && !link.Unprocessed(err) {
		return &lostError{err: c.explainLink(err)}
	}
	return err
}

// lostError is a failure of the connection, whatever it was.
type lostError struct{ err error }

func (e *lostError) Error() string        { return e.err.Error() }
func (e *lostError) Unwrap() error        { return e.err }
func (e *lostError) Is(target error) bool { return target == errHostLost }

// failure says what a caller learns: that the host is out of reach is unavailable, and
// not a deadline of somebody else's or a refusal of an identity that is being renewed.
func (c *Client) failure(ctx context.Context, err error) error {
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, ErrClientClosed), errors.Is(err, ErrHandshakeRefused),
		connect.CodeOf(err) == connect.CodeUnavailable:
		return err
	case errors.Is(err, link.ErrClosed):
		return ErrClientClosed
	case errors.Is(err, errHostLost), errors.Is(err, errRenewing), link.Unprocessed(err):
		return connect.NewError(connect.CodeUnavailable, err)
	}
	return err
}

// errRenewing says that the client has no identity at the moment.
var errRenewing = errors.New("the identity at the host is being renewed")

// present returns the identity to present. It waits for a new identity where the host
// refused the one that there is, or another host gave it, and sends that to nobody. The client's own calls wait
// for each other where it is in doubt; done, nil where nobody waits, lets them go on.
func (c *Client) present(ctx context.Context, u *url.URL) (id identity, done func(), err error) {
	if _, err := c.base(); err != nil {
		return identity{}, nil, err
	}
	for {
		c.mu.Lock()
		closed, ours, id := c.closed, c.isForLocked(u), c.identity
		good := id.token == "" || id.managed || id.serial != c.refused && c.isOfHostLocked(id)
		done, wait := c.probeLocked(ctx)
		c.mu.Unlock()
		switch {
		case closed:
			return identity{}, done, ErrClientClosed
		case !ours:
			return identity{}, done, errForeignURL
		case wait != nil:
			select {
			case <-wait:
			case <-ctx.Done():
				return identity{}, nil, ctx.Err()
			}
		case good:
			return id, done, nil
		default:
			err := c.renewed(ctx, id, false)
			if done != nil {
				done()
			}
			if err != nil {
				return identity{}, nil, unrenewed(err)
			}
		}
	}
}

// isForLocked reports whether a request is for the host: where it is, or where it was when what makes the request
// was made, known or not.
func (c *Client) isForLocked(u *url.URL) bool {
	_, left := c.former.Known(placeOf(u))
	return left || same(u, c.host) || u.Host == unknownHost
}

func same(u, host *url.URL) bool { return u.Scheme == host.Scheme && u.Host == host.Host }

func placeOf(u *url.URL) string { return u.Scheme + "://" + u.Host }

// unrenewed is the error of a call for which there is no identity.
func unrenewed(err error) error {
	if err == nil || permanent(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errRenewing, err)
}

// refusedCredential reports that the host refused the credential. That a service
// itself refuses a call says nothing about it: the host passes no challenge on.
func refusedCredential(resp *http.Response) bool {
	return resp.Header.Get(headerChallenge) != ""
}

// answered takes account of an answer of the host to an identity that it knows. One that it refused
// since says nothing about the next.
func (c *Client) answered(id identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.identity.serial == id.serial && c.refused != id.serial {
		c.doubtful, c.signs.shown, c.accepted = false, time.Now(), id.serial
		c.reachableLocked()
	}
}

// background marks the calls by which a client keeps itself in the host's service, and
// says which identity they were made with.
type background struct {
	id   identity
	body interface{ Await() } // of the answer; nil where nobody can wait for more of it
}

type backgroundKey struct{}

func withBackground(ctx context.Context) (context.Context, *background) {
	b := &background{}
	return context.WithValue(ctx, backgroundKey{}, b), b
}

func noteIdentity(ctx context.Context, id identity) {
	if b, ok := ctx.Value(backgroundKey{}).(*background); ok {
		b.id = id
	}
}

func noteBody(ctx context.Context, body io.Reader) {
	if b, ok := ctx.Value(backgroundKey{}).(*background); ok {
		b.body, _ = body.(interface{ Await() })
	}
}

// await returns when there is more of the answer to read, or at once where that cannot be said. It
// is for who has read of it, and would wait there with much more of its stack in use.
func (b *background) await() {
	if b.body != nil {
		b.body.Await()
	}
}

// probeLocked lets one of the client's own calls go ahead after the connection was lost,
// and has the others wait: a host that was started anew is asked about an identity that
// it does not know once, and not by every watch.
func (c *Client) probeLocked(ctx context.Context) (done func(), wait <-chan struct{}) {
	_, own := ctx.Value(backgroundKey{}).(*background)
	switch {
	case !own || !c.doubtful:
		return nil, nil
	case c.probing != nil:
		return nil, c.probing
	}
	mine := make(chan struct{})
	c.probing = mine
	return sync.OnceFunc(func() {
		c.mu.Lock()
		c.probing = nil
		c.mu.Unlock()
		close(mine)
	}), nil
}

// foreignBody is a response of the configured HTTP client, whose request ends with it.
type foreignBody struct {
	io.ReadCloser

	ctx context.Context //nolint:containedctx // the request's, which ends with it
	end context.CancelFunc
}

// Read implements io.Reader. What the server says with a reset Connect itself knows to read.
func (b *foreignBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if ended(err) || b.ctx.Err() != nil {
		return n, err //nolint:wrapcheck // stands for what it wraps
	}
	if _, reset := errors.AsType[http2.StreamError](err); reset {
		return n, err //nolint:wrapcheck // as above
	}
	return n, brokenOff(err)
}

// Close implements io.Closer. The request ends first: it may wait for its caller to send.
func (b *foreignBody) Close() error {
	b.end()
	return b.ReadCloser.Close() //nolint:wrapcheck // stands for what it wraps
}

// linkBody is a response that says what it means when it breaks in the middle.
type linkBody struct {
	io.ReadCloser

	client *Client
	ctx    context.Context //nolint:containedctx // the request's
}

// Read implements io.Reader.
func (b *linkBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if ended(err) {
		return n, err //nolint:wrapcheck // stands for what it wraps
	}
	err = b.client.linkError(b.ctx, err)
	if errors.Is(err, errHostLost) {
		err = brokenOff(err)
	}
	return n, err
}

// ended reports that a body was read to its end, or goes on. The end of a connection is
// none, though it wraps io.EOF.
func ended(err error) bool {
	return err == nil || err == io.EOF //nolint:errorlint // as the comment says
}

// brokenOff is the error of a response that the loss of the host broke off. Nothing of it is
// io.EOF, which Connect's clients take for the end of a stream, or for a response without
// any message: then they say that nobody serves the procedure.
func brokenOff(err error) error {
	err = fmt.Errorf("%w: %w", errHostLost, err)
	return connect.NewError(connect.CodeUnavailable, &plainError{text: err.Error(), coded: true, err: err})
}
