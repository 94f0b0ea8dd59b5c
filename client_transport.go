package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/bridge"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/eyeballs"
	"github.com/masegraye/connect-plugin-go/internal/link"
	"github.com/masegraye/connect-plugin-go/internal/turns"
	"github.com/masegraye/connect-plugin-go/internal/unsent"
)

// Bounds of a client's connections.
const (
	// clientDialTimeout is long: a host to which a thousand plugins come back is slow,
	// and a connection that is given up has cost it what it cost.
	clientDialTimeout = 30 * time.Second
	clientMaxHeader   = 256 << 10 // as the host takes of a plugin
	// clientMaxConns bounds the connections, each of which carries as many streams
	// as the host allows (256 unless configured), and so the TLS handshakes with
	// which a client that lost its connection comes back.
	clientMaxConns    = 16
	clientPingAfter   = 30 * time.Second
	clientPingTimeout = 15 * time.Second
	// clientOvertime is what a host allows its plugins, unless configured otherwise.
	clientOvertime = time.Minute
)

// setTransport makes the client's connections, or takes the configured HTTP client so
// that it follows no redirect.
func (c *Client) setTransport() error {
	if c.cfg.HTTPClient != nil {
		c.transport = c.cfg.HTTPClient
		if hc, ok := c.cfg.HTTPClient.(*http.Client); ok {
			own := *hc
			own.CheckRedirect = noRedirect
			c.transport = &own
		}
		c.transport = guestClient{c.transport}
		return nil
	}
	if _, err := c.cfg.clientTLS(); err != nil {
		return err
	}
	c.link = link.New(link.Config{
		Dial: c.dial, DialTimeout: clientDialTimeout, MaxConns: clientMaxConns, MaxHeaderBytes: clientMaxHeader,
		PingAfter: clientPingAfter, PingTimeout: clientPingTimeout, Overtime: clientOvertime, Lost: c.lost, Failed: c.unreachable,
	})
	return nil
}

// noRedirect hands a redirect to the caller as the answer that it is, so that
// credentials go nowhere else.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// dial connects to where the host is now: of several endpoints that discovery has, to the first one where one answers.
func (c *Client) dial(ctx context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
	for tried := 1; ; tried++ {
		among, err := c.findHost(ctx)
		if err != nil {
			return nil, err
		}
		share, cancel := c.shareOf(ctx, tried, among)
		conn, err := c.dialHost(share, below)
		cancel()
		if err == nil {
			return conn, nil
		}
		c.passOver()
		if tried >= among || ctx.Err() != nil {
			return nil, err
		}
	}
}

// dialHost connects to the host. It knows no proxy. Records are full-sized from
// the start: what is written together arrives together.
func (c *Client) dialHost(ctx context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
	c.mu.Lock()
	host := c.host
	c.mu.Unlock()
	addr := host.Host
	if host.Port() == "" {
		addr = net.JoinHostPort(host.Hostname(), defaultPorts[host.Scheme])
	}
	link.Leads(ctx, host)
	if host.Scheme != "https" {
		conn, err := bridge.Dial(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return below(conn), nil
	}
	cfg, err := c.cfg.clientTLS()
	if err != nil {
		return nil, err
	}
	cfg.DynamicRecordSizingDisabled = true
	cfg.ServerName = cmp.Or(cfg.ServerName, withoutZone(host.Hostname()))
	cfg.GetClientCertificate = c.noting(cfg.GetClientCertificate)
	if c.connecting.Await(ctx) {
		defer c.connecting.Give()
	}
	conn, err := dialEach(ctx, addr, func(ctx context.Context, addr string) (*tls.Conn, error) {
		return dialTLS(ctx, addr, below, cfg)
	})
	if err != nil {
		return nil, err
	}
	if shown := conn.ConnectionState().PeerCertificates; len(shown) > 0 {
		c.vigil.Saw("the host, where this side calls it", shown[0])
	}
	return conn, nil
}

// mostConnecting is how many clients of a process connect to their hosts at a time: thousands may share it, and lose
// their host at one moment.
const mostConnecting = 64

// connecting are their turns. Who waits for one has no connection yet, and so takes nothing of its host.
var connecting = turns.New(mostConnecting)

// dialTLS connects to one address, and agrees on TLS there.
func dialTLS(ctx context.Context, addr string, below func(net.Conn) net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	raw = below(raw)
	conn := tls.Client(raw, certs.ScreenServer(cfg))
	if err := certs.Agree(ctx, conn); err != nil {
		_ = raw.Close()
		return nil, explainTLS(err)
	}
	return conn, nil
}

// dialEach connects to the first address of a name that answers. One that swallows what is said
// to it costs a fraction of a second (RFC 8305), also where it takes connections.
func dialEach(ctx context.Context, addr string, dial func(ctx context.Context, addr string) (*tls.Conn, error)) (*tls.Conn, error) {
	addrs := addressesOf(ctx, addr)
	if len(addrs) <= 1 {
		return dial(ctx, addr) // which knows best what to say of a name
	}
	conn, err := eyeballs.Race(ctx, eyeballs.Alternate(addrs), func(ctx context.Context, at netip.AddrPort) (*tls.Conn, error) {
		return dial(ctx, at.String())
	}, func(c *tls.Conn) { _ = c.Close() })
	if err == nil {
		return conn, nil
	}
	if trust, ok := errors.AsType[*trustError](err); ok { // somebody was there
		return nil, trust
	}
	return nil, err
}

// addressesOf returns what a name stands for; nothing where it is none, or is not known.
func addressesOf(ctx context.Context, addr string) []netip.AddrPort {
	name, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if _, literal := netip.ParseAddr(name); err != nil || literal == nil {
		return nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil
	}
	out := make([]netip.AddrPort, len(found))
	for i, a := range found {
		out[i] = netip.AddrPortFrom(a.Unmap(), uint16(number)) //nolint:gosec // a port
	}
	return out
}

type clientCertificates func(*tls.CertificateRequestInfo) (*tls.Certificate, error)

// noting notes which certificate a source gave. Of one that never changes, nil, nothing is
// noted.
func (c *Client) noting(source clientCertificates) clientCertificates {
	if source == nil {
		return nil
	}
	return func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := source(request)
		if err != nil {
			return cert, err
		}
		c.mu.Lock()
		c.shown.Note(certs.LeafOf(cert))
		c.mu.Unlock()
		return cert, nil
	}
}

// showAnother has what is new go over another connection where this side has another certificate by
// now than it showed on those that there are. Where it has none, those are better than no connection.
func (c *Client) showAnother() {
	if c.link == nil || c.cfg.TLS == nil || c.cfg.TLS.GetClientCertificate == nil {
		return
	}
	leaf := certs.ClientLeaf(c.cfg.TLS)
	c.mu.Lock()
	other := c.shown.Differs(leaf)
	c.mu.Unlock()
	if leaf != nil && other {
		c.link.Retire()
	}
}

// refresh has what is new go over another connection where it is time to show the host a
// later certificate, and there is one; what is under way goes on.
func (c *Client) refresh(now time.Time) {
	c.mu.Lock()
	due := c.shown.Redial(now)
	c.mu.Unlock()
	if due {
		c.showAnother()
	}
}

// redialDue returns how long it is until the client should show a later certificate.
func (c *Client) redialDue() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown.Due(time.Now())
}

// lost takes account of the loss of a connection. It waits for nothing.
func (c *Client) lost(err error) {
	if c.link.Connected() {
		return
	}
	c.mu.Lock()
	c.doubtful = c.identity.token != ""
	c.pace.lost(time.Now(), err)
	c.mu.Unlock()
	c.tell()
}

// unreachable takes account of a connection that could not be opened.
func (c *Client) unreachable(err error) {
	c.trustFailed(c.explainLink(err))
	c.mu.Lock()
	c.pace.failed(time.Now(), err)
	c.mu.Unlock()
}

// warnEvery is how often the same peer's failures of TLS are logged at Warn.
const warnEvery = time.Minute

// trustError is a failure of TLS between a client and its host: who refused whom, and why.
type trustError struct {
	text    string
	refused bool // by the host
	passing bool // it is of no certificate and of no name: another attempt may end otherwise
	err     error
}

func (e *trustError) Error() string {
	var op *net.OpError
	if e.refused && errors.As(e.err, &op) { // what the refusal broke off says nothing of its cause
		return e.text + ": " + op.Error()
	}
	return e.text + ": " + e.err.Error()
}

// refusedInTLS is the error of a host that does not take this side's certificate, or cannot
// show one of its own.
func refusedInTLS(op *net.OpError, err error) error {
	if alert := op.Err.Error(); strings.Contains(alert, internalError) || strings.Contains(alert, "unrecognized name") {
		return &trustError{
			text: "the host cannot finish TLS: " + explainAlert(alert), passing: strings.Contains(alert, internalError), err: op,
		}
	}
	return &trustError{
		text: "the host refuses this side in TLS: " + explainAlert(op.Err.Error()) +
			"; if it is the certificate, have the host's Authority write the credentials again (WriteCredentials)",
		refused: true, err: err,
	}
}

func (e *trustError) Unwrap() []error {
	if e.refused {
		return []error{ErrHostNotTrusted, ErrHandshakeRefused, e.err}
	}
	return []error{ErrHostNotTrusted, e.err}
}

// passing reports that TLS failed for a reason of the host's own, such as a source of certificates that is away.
func passing(err error) bool {
	trust, ok := errors.AsType[*trustError](err)
	return ok && trust.passing
}

// explainLink says in words why there is no connection to the host, where that is a
// matter of trust. Another error stays as it is.
func (c *Client) explainLink(err error) error {
	var known *trustError
	if err == nil || errors.As(err, &known) || undiscovered(err) {
		return err
	}
	if errors.Is(err, link.ErrTLS) {
		return &trustError{text: "the host speaks TLS, and this side plaintext: write https:// in HostURL", err: err}
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == remoteError {
		return c.ownFault(refusedInTLS(op, err))
	}
	return err
}

// ownFault says of a refusal what this side finds wrong in the certificate that it shows: the alert of a host tells
// no reason.
func (c *Client) ownFault(err error) error {
	refusal, ok := errors.AsType[*trustError](err)
	if !ok || !refusal.refused || c.cfg.TLS == nil {
		return err
	}
	if fault := certs.OwnFault(c.cfg.TLS, time.Now()); fault != nil {
		refusal.text += "; as this side sees it, our certificate " + fault.Error()
	}
	return err
}

// undiscovered reports that the host could not be found, whatever TLS or a service of others
// say about that.
func undiscovered(err error) bool {
	_, ok := errors.AsType[*discoveryError](err)
	return ok
}

// errTurnedAway says that somebody took a connection and ended it before anything was agreed
// on, as a host also does with those for which it has no room.
var errTurnedAway = errors.New("the connection ended during the TLS handshake: what answers there speaks no TLS, has nobody behind it, " +
	"has no room for it, or puts something before it that the host does not read, such as a PROXY header")

// explainTLS says in words why this side could not agree on TLS with the host. That the
// connection broke is no matter of trust.
func explainTLS(err error) error {
	var (
		record  tls.RecordHeaderError
		invalid *tls.CertificateVerificationError
		op      *net.OpError
		timeout net.Error
	)
	switch {
	case errors.As(err, &record):
		return &trustError{
			text: "the host does not speak TLS: give it TLS, or write http:// in HostURL and set AllowInsecure for development",
			err:  err,
		}
	case errors.As(err, &op) && op.Op == remoteError:
		return refusedInTLS(op, err)
	case broken(err), errors.As(err, &op), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", errTurnedAway, err)
	case errors.As(err, &invalid):
		return &trustError{text: "this side refuses the host's certificate: " + explainCertificate(invalid.Err), err: err}
	}
	return &trustError{text: "this side refuses the host in TLS", err: err}
}

// explainCertificate says what to look at.
func explainCertificate(err error) string {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.Is(err, certs.ErrChain):
		return "it comes with too many others, or is too large; have the host show its own chain alone, without roots"
	case errors.As(err, &unknown):
		return "it is of an authority that is not in TLS.RootCAs; compare ca.crt with the host's, and start this program again when that changes"
	case errors.As(err, &name):
		return "it is not valid for the name in HostURL; add that to the host's certificate (ServeConfig.Hosts), or use a name that it has"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it has expired or is not valid yet; renew it, or compare the clocks"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "it is not made for servers; issue one with the extended key usage serverAuth"
	}
	return "it does not verify"
}

// trustFailed logs a failure of trust, once in a while.
func (c *Client) trustFailed(err error) {
	trust, ok := errors.AsType[*trustError](err)
	if !ok {
		return
	}
	c.mu.Lock()
	due := time.Since(c.warned) >= warnEvery
	more := c.unwarned
	if c.unwarned++; due {
		c.warned, c.unwarned = time.Now(), 0
	}
	host := c.host
	c.mu.Unlock()
	said := "no trust between this side and the host"
	if trust.passing {
		said = "the host cannot finish TLS for now"
	}
	if says := []any{keyHost, host.String(), keyError, err}; due {
		if more > 0 {
			says = append(says, keyMore, more)
		}
		c.cfg.Logger.Warn(said, says...)
	}
}

// marked notes in the error of a call that nothing was done with it, where that is certain.
func (a *attempt) marked(err error) error {
	if connect.CodeOf(err) == connect.CodeUnavailable && (!a.sent || link.Unsent(a.err)) {
		return untouchedError{err}
	}
	return err
}

// answered makes of what a transport refuses something that says the same to callers of
// every version of Connect, which know no errors of each other. An error stays an error
// where they make the same of it: unavailable, or the end of a context. Any other code is
// an answer in the protocol of the request.
func answered(r *http.Request, err error) (*http.Response, error) {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok || coded.Code() == connect.CodeUnavailable || r.Context().Err() != nil || !errorWriter.IsSupported(r) {
		return nil, &plainError{text: messageOf(err, coded), coded: ok && r.Context().Err() == nil, err: err}
	}
	said := connect.NewError(coded.Code(), errors.New(messageOf(err, coded))) //nolint:err113 // the text of err
	for _, detail := range coded.Details() {
		said.AddDetail(detail)
	}
	if after := coded.Meta().Get(headerRetryAfter); after != "" {
		said.Meta().Set(headerRetryAfter, after)
	}
	a := &unsent.Answer{}
	if failed := errorWriter.Write(a, r, said); failed != nil {
		return nil, fmt.Errorf("answer: %w", failed)
	}
	return a.Response(r), nil
}

// messageOf returns the text of err without the code in it, which its reader puts before it.
func messageOf(err error, coded *connect.Error) string {
	if coded == nil {
		return err.Error()
	}
	return strings.Replace(err.Error(), coded.Error(), coded.Message(), 1)
}

// plainError is err for whoever asks with [errors.Is] and [errors.As], but for what would
// have one version of Connect make something else of it than another.
type plainError struct {
	text  string
	coded bool // as unavailable: not the end of a context or of a stream, whatever is below
	err   error
}

// Error implements error.
func (e *plainError) Error() string { return e.text }

// Is implements what [errors.Is] asks for. That a connection was closed is canceled, as in
// gRPC: whoever tries again where something is unavailable would do so for ever.
func (e *plainError) Is(target error) bool {
	switch target {
	case context.Canceled:
		return !e.coded && (errors.Is(e.err, ErrClientClosed) || errors.Is(e.err, errConnClosed) || errors.Is(e.err, target))
	case context.DeadlineExceeded, os.ErrDeadlineExceeded:
		return !e.coded && errors.Is(e.err, target)
	case io.EOF, syscall.EPIPE, syscall.ECONNRESET:
		return false // Connect's clients take them for an end of the caller's doing
	}
	return errors.Is(e.err, target)
}

// As implements what [errors.As] asks for.
func (e *plainError) As(target any) bool {
	if _, ok := target.(**connect.Error); ok {
		return false
	}
	return errors.As(e.err, target)
}
