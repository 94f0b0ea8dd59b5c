package connectplugin

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/extent"
	"github.com/masegraye/connect-plugin-go/internal/prescan"
	"github.com/masegraye/connect-plugin-go/internal/swell"
)

// Names of the wire: headers, paths and metadata keys.
const (
	headerRuntimeID     = "X-Plugin-Runtime-Id"
	headerCallerID      = callerPrefix + "Id"
	headerCallerSelfID  = callerPrefix + "Self-Id"
	headerCallerVersion = callerPrefix + "Self-Version"
	callerPrefix        = "X-Plugin-Caller-" // what the host says of a caller
	headerAuthorization = "Authorization"
	bearerPrefix        = "Bearer "
	headerCacheControl  = "Cache-Control"
	noStore             = "no-store"
	headerChallenge     = "Www-Authenticate"
	bearerChallenge     = "Bearer"
	headerRetryAfter    = "Retry-After"
	headerGRPCStatus    = "Grpc-Status"
	headerTrailer       = "Trailer"
	// headerConstraint says which versions of a service will do, where the router chooses.
	headerConstraint = "X-Plugin-Constraint"
	// anyProvider, in the place of a provider, leaves the choice to the router.
	anyProvider = "-"
	// metadataAnyProvider is the key of the host's metadata that says, with "true", that it
	// knows anyProvider.
	metadataAnyProvider = "connectplugin.any_provider"
	// metadataTrue is the value of a key that says yes.
	metadataTrue = "true"
	// headerReportAfter is how long an unchanged report need not be repeated, as Go writes durations.
	headerReportAfter = "X-Plugin-Report-After"
	// headerStandby names the types for which a plugin stands by, or says that there are none,
	// with noStandby.
	headerStandby = "X-Plugin-Standby"
	noStandby     = "none"
	headerLease   = "X-Plugin-Lease" // how long an identity may show no life, as Go writes durations

	pathServices     = "/services/"
	pathCapabilities = "/capabilities/"
	pathHealthz      = "/healthz"
	pathReadyz       = "/readyz"
	pathMetrics      = "/metrics"

	// What the host alone calls at a plugin.
	ownPackage   = "/connectplugin.v1." // of all services of this library between hosts and plugins
	pathControl  = "/" + connectpluginv1connect.PluginControlName + "/"
	pathIdentity = "/" + connectpluginv1connect.PluginIdentityName + "/"

	// metadataBaseURL is where a self-registering plugin says it is served.
	metadataBaseURL = "base_url"
	// metadataStandby, where it is "true", says that a registration stands by while another
	// plugin provides the type.
	metadataStandby = "standby"
	// metadataWeight is the share of the calls that a provider asks for.
	metadataWeight = "weight"

	coreProtocolVersion = 1
)

// The health checking protocol of gRPC. Its messages are those of connectplugin.health.v1
// byte by byte; in JSON the names of the statuses differ. Its descriptors are not linked: those
// of grpc-go, in the same program, would register the same names again and panic.
const (
	grpcHealthCheck = "/grpc.health.v1.Health/Check"
	grpcHealthWatch = "/grpc.health.v1.Health/Watch"
)

// procedures that stream: they have no unary deadline.
var streamingProcedures = map[string]bool{
	connectpluginv1connect.ServiceRegistryWatchServiceProcedure: true,
	connectpluginv1connect.HealthServiceWatchProcedure:          true,
	grpcHealthWatch: true,
}

func unaryProcedure(path string) bool { return !streamingProcedures[path] }

func wireDeclarations(in []ServiceDeclaration) []*connectpluginv1.ServiceDeclaration {
	out := make([]*connectpluginv1.ServiceDeclaration, 0, len(in))
	for _, d := range in {
		out = append(out, &connectpluginv1.ServiceDeclaration{Type: d.Type, Version: d.Version, Path: servicePath(d.Path)})
	}
	return out
}

func wireDependencies(in []ServiceDependency) []*connectpluginv1.ServiceDependency {
	out := make([]*connectpluginv1.ServiceDependency, 0, len(in))
	for _, d := range in {
		out = append(out, &connectpluginv1.ServiceDependency{
			Type: d.Type, MinVersion: d.MinVersion,
			RequiredForStartup: d.RequiredForStartup, WatchForChanges: d.WatchForChanges,
		})
	}
	return out
}

func declarationOf(d *connectpluginv1.ServiceDeclaration) ServiceDeclaration {
	return ServiceDeclaration{Type: d.GetType(), Version: d.GetVersion(), Path: servicePath(d.GetPath())}
}

// compressionGzip is the one compression of messages.
const compressionGzip = "gzip"

// CompressMinBytes is the size from which the handlers of a host, and those of generated
// plugins, compress a message, in bytes. What is smaller costs more time to compress than
// it saves. Connect's own handlers compress every answer, however short, to a client that
// takes that, which a plugin pays with a third of its processor time: give it to them
// with connect.WithCompressMinBytes.
const CompressMinBytes = 1 << 10

// fieldBounds refuses messages whose fields have more than that.
type fieldBounds struct {
	extent.Bounds

	met func(ctx context.Context, procedure string) // is told of each
}

// WrapUnary implements connect.Interceptor.
func (b fieldBounds) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := b.check(ctx, req.Spec().Procedure, req.Any()); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (fieldBounds) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (b fieldBounds) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, boundedConn{conn, ctx, b})
	}
}

// check returns the refusal of a message, nil for none.
func (b fieldBounds) check(ctx context.Context, procedure string, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return nil
	}
	if err := b.Check(m.ProtoReflect()); err != nil {
		b.met(ctx, procedure)
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return nil
}

// boundedConn is a stream whose messages are bounded.
type boundedConn struct {
	connect.StreamingHandlerConn

	ctx    context.Context //nolint:containedctx // of the call
	bounds fieldBounds
}

// Receive implements connect.StreamingHandlerConn.
func (c boundedConn) Receive(message any) error {
	if err := c.StreamingHandlerConn.Receive(message); err != nil {
		return err //nolint:wrapcheck // the stream's own
	}
	return c.bounds.check(c.ctx, c.Spec().Procedure, message)
}

// boundedMessages bounds each message to a handler, in bytes, before it is decoded
// and while it is decompressed. Connect alone decompresses the rest of a message
// that is too large, to say how large it was: for a megabyte from a stranger it would
// decompress a gigabyte.
func boundedMessages(limit int) connect.HandlerOption {
	bounds := defaultLimits.swelling()
	bounds.Bytes = int64(limit)
	return connect.WithHandlerOptions(swellingMessages(limit, bounds), counting(&messageFields))
}

// swellingMessages is boundedMessages with other bounds of decompression.
func swellingMessages(limit int, bounds swell.Bounds) connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithReadMaxBytes(limit),
		connect.WithCompressMinBytes(CompressMinBytes),
		connect.WithCompression(compressionGzip,
			func() connect.Decompressor { return &boundedGzip{bounds: bounds} },
			func() connect.Compressor { return gzip.NewWriter(io.Discard) },
		),
	)
}

// boundedGzip decompresses up to a limit and fails beyond it.
type boundedGzip struct {
	gzip.Reader

	bounds swell.Bounds // fixed at creation
	left   int64
}

// Reset begins a new message.
func (r *boundedGzip) Reset(from io.Reader) error {
	r.left = r.bounds.Bytes + 1
	if whole, ok := from.(interface{ Len() int }); ok { // as Connect's buffers are
		r.left = r.bounds.Most(int64(whole.Len())) + 1
	}
	return r.Reader.Reset(from) //nolint:wrapcheck // Connect wraps it
}

// Read reads what is left up to the limit.
func (r *boundedGzip) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, &quietCodeError{swellError(swell.ErrSwollen)}
	}
	n, err := r.Reader.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err //nolint:wrapcheck // io.EOF must stay what it is
}

// quietCodeError is an error with a code, which its text does not name: Connect writes it into the text of another.
type quietCodeError struct{ err error }

func (e *quietCodeError) Error() string { return errors.Unwrap(e.err).Error() }
func (e *quietCodeError) Unwrap() error { return e.err }

// messageFields bound how many fields another message to the host has.
var messageFields = prescan.Fields{Most: handshakeFields.Most}

// counting has messages decoded once what is in them was counted.
func counting(fields *prescan.Fields) connect.HandlerOption {
	return connect.WithHandlerOptions(connect.WithCodec(prescan.Binary{Fields: fields}),
		connect.WithCodec(prescan.Text{Kind: "json", Most: fields.Most}),
		connect.WithCodec(prescan.Text{Kind: "json; charset=utf-8", Most: fields.Most}))
}

// prescanned has handshakes looked at while they arrive, so that one of which there is too
// much is refused for that, and before it is there. What is compressed is looked at by its
// codec.
func prescanned(next http.Handler, l Limits) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		encoding, enveloped := swell.Framing(r.Header)
		whole := enveloped || r.Header.Get(encoding) == "" || r.Header.Get(encoding) == "identity"
		if whole && !strings.Contains(r.Header.Get("Content-Type"), "json") {
			r = r.WithContext(r.Context())
			r.Body = &scannedBody{
				ReadCloser: r.Body, scanner: prescan.NewScanner(&handshakeFields), enveloped: enveloped,
				most: int64(l.MaxHandshakeBytes), discard: int64(l.MaxMessageBytes),
			}
		}
		next.ServeHTTP(w, r)
	})
}

// envelopeLen is how long the beginning of an envelope is, of which the rest is the message.
const envelopeLen = 5

// scannedBody is the body of a handshake.
type scannedBody struct {
	io.ReadCloser

	// Fixed at creation.
	scanner       *prescan.Scanner // nil where the message is compressed
	enveloped     bool
	most, discard int64 // bytes of the message, and of a larger one that are looked at

	begun bool
	head  []byte // of the envelope, was read and not passed on
}

// Read implements io.Reader.
func (b *scannedBody) Read(p []byte) (int, error) {
	if b.enveloped && !b.begun {
		b.begun = true
		if err := b.open(); err != nil {
			return 0, err
		}
	}
	if len(b.head) > 0 {
		n := copy(p, b.head)
		b.head = b.head[n:]
		return n, nil
	}
	n, err := b.ReadCloser.Read(p)
	if too := b.scan(p[:n]); too != nil {
		return 0, too
	}
	return n, err //nolint:wrapcheck // the body's own error
}

func (b *scannedBody) scan(p []byte) error {
	if b.scanner == nil {
		return nil
	}
	if err := b.scanner.Scan(p); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return nil
}

// open reads the beginning of the envelope. Of a message that is too large it says why.
func (b *scannedBody) open() error {
	head := make([]byte, envelopeLen)
	n, err := io.ReadFull(b.ReadCloser, head)
	b.head = head[:n]
	if err != nil {
		return nil //nolint:nilerr // it comes again
	}
	size := int64(binary.BigEndian.Uint32(head[1:]))
	if head[0]&1 != 0 {
		b.scanner = nil
	}
	if size <= b.most {
		return nil
	}
	chunk := make([]byte, 4<<10) //nolint:mnd // of what is thrown away
	for left := min(size, b.discard); left > 0 && err == nil; left -= int64(n) {
		n, err = b.ReadCloser.Read(chunk[:min(left, int64(len(chunk)))])
		if too := b.scan(chunk[:n]); too != nil {
			return too
		}
	}
	return errorf(connect.CodeResourceExhausted, "a handshake may have %d bytes", b.most)
}

// Bounds of a health report.
const (
	maxHealthReasonLen         = 1024
	maxUnavailableDependencies = 64
)

// forges reports whether a character makes a text look like another one.
func forges(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
}

// fitReason makes of what a plugin says about its health a text that hosts take, who refuse a report with any other: a line feed
// is no reason to take the plugin for healthy.
func fitReason(reason string) string {
	fit := strings.Map(func(r rune) rune {
		if forges(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(reason, "?"))
	if len(fit) <= maxHealthReasonLen {
		return fit
	}
	const more = "…"
	return strings.ToValidUTF8(fit[:maxHealthReasonLen-len(more)], "") + more
}

// Times that both sides keep.
const (
	renewAfter = 2.0 / 3 // of the lifetime that is left
	renewFloor = 100 * time.Millisecond
	// leaveWait bounds how long a plugin that ends tries to tell its host so, before it drains and after that, where it
	// has lastWait in any case.
	leaveWait = 2 * time.Second
	lastWait  = time.Second
)

// deadlineInterceptor gives unary calls without a deadline one.
func deadlineInterceptor(timeout time.Duration) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			return next(ctx, req)
		}
	}
}

// Rights are what a caller may do: what it declared and what policy allows. The host's
// own plugins ([PluginPolicy]'s HostPlugins) are not among them.
// "*" in a list is everything.
type Rights struct {
	// Provides lists the service types that it may register.
	Provides []string
	// Requires lists the service types that it may discover, watch and call.
	Requires []string
	// Capabilities lists the capabilities that it may be granted.
	Capabilities []string
}

// Caller is the authenticated plugin behind a request.
type Caller struct {
	// RuntimeID is the identity that the host issued.
	RuntimeID string
	// SelfID is the plugin's one name, for which policy is written: its self id, or the
	// identity of its certificate (see [Policy]).
	SelfID string
	// SelfVersion is the version that the plugin gave.
	SelfVersion string
	// Fingerprint is the SHA-256 of the public key (SPKI) in its client
	// certificate, in hex; empty without mutual TLS.
	Fingerprint string
	// Rights are its rights at the time of the call of [CallerFromContext].
	Rights Rights
}

type statedCallerKey struct{}

// statedContext is a context in which the caller is known that the host stated.
type statedContext struct {
	context.Context //nolint:containedctx // it is a context itself

	caller Caller
}

// Value implements context.Context.
func (c *statedContext) Value(key any) any {
	if key == (statedCallerKey{}) {
		return &c.caller
	}
	return c.Context.Value(key)
}

// WithCaller returns a context in which [CallerFromContext] returns c. It is for tests of handlers that ask who calls
// them, without a host. Nothing of a host goes by it: where the host knows the caller, CallerFromContext returns that one.
func WithCaller(ctx context.Context, c Caller) context.Context { return &statedContext{ctx, c} }

// statedCaller returns the caller that the host stated.
func statedCaller(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(statedCallerKey{}).(*Caller)
	if !ok {
		return Caller{}, false
	}
	return *c, true
}

// withStated returns the context of a request in which the caller is known that the host states
// in header fields.
func withStated(ctx context.Context, header http.Header) context.Context {
	if !statesCaller(header) {
		return ctx
	}
	return &statedContext{ctx, Caller{
		RuntimeID: header.Get(headerCallerID), SelfID: header.Get(headerCallerSelfID), SelfVersion: header.Get(headerCallerVersion),
	}}
}

func statesCaller(header http.Header) bool {
	id := header[headerCallerID]
	return len(id) == 1 && id[0] != ""
}

// withStatedCaller gives a plugin's handler the caller that the host states in header
// fields. Nobody but the host can have sent the request.
func withStatedCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if statesCaller(r.Header) {
			r = r.WithContext(withStated(r.Context(), r.Header))
		}
		next.ServeHTTP(w, r)
	})
}
