package connectplugin

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"reflect"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/swell"
)

// Sentinel errors that a caller may branch on with [errors.Is].
var (
	// ErrInvalidConfig is wrapped by every error about a configuration. The
	// text names the field and what to write instead.
	ErrInvalidConfig = errors.New("invalid configuration")
	// ErrEmptyPluginSet is returned by [PluginSet.Validate] for a set without
	// plugins.
	ErrEmptyPluginSet = errors.New("plugin set is empty")
	// ErrInvalidPluginImpl is wrapped where an implementation in
	// [ServeConfig.Impls] is missing or refused by its plugin.
	ErrInvalidPluginImpl = errors.New("invalid plugin implementation")
	// ErrPluginNotFound is returned by [Client.Dispense] for a name that the
	// client does not know or the host does not offer.
	ErrPluginNotFound = errors.New("plugin not found")
	// ErrClientNotConnected is returned by client methods that need a
	// handshake, before [Client.Connect] succeeded.
	ErrClientNotConnected = errors.New("client is not connected")
	// ErrClientClosed is returned by every client method that calls the host, after [Client.Close].
	ErrClientClosed = errors.New("client is closed")
	// ErrNoEndpoints is returned where discovery knows no endpoint of the name.
	ErrNoEndpoints = errors.New("no endpoints")
	// ErrNoReadyEndpoints is returned where endpoints are known and none of
	// them can be used.
	ErrNoReadyEndpoints = errors.New("no ready endpoints")
	// ErrHostClosed is returned by [Host.Serve] and [Host.ListenAndServe] after
	// [Host.Shutdown].
	ErrHostClosed = errors.New("host is closed")
	// ErrHandshakeRefused is wrapped by [Client.Connect] when the host answered
	// and refused, so that trying again with the same configuration is of no use.
	ErrHandshakeRefused = errors.New("handshake refused")
	// ErrServiceTaken is wrapped by [ServePlugin] where another plugin provides a service
	// type of this one, and this one does not stand by ([PluginServerConfig].Standby).
	ErrServiceTaken = errors.New("service type is taken")
	// ErrHostNotTrusted is wrapped by [Client.Connect] when TLS failed, whichever
	// side refused the other, and when the host's answer does not prove that it
	// holds the client's secret, or promises less than the client demands.
	ErrHostNotTrusted = errors.New("host is not trusted")
)

// errorf makes a Connect error with a code; %w wraps as in [fmt.Errorf].
func errorf(code connect.Code, format string, args ...any) *connect.Error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

// fieldError names a configuration field and what to write instead.
func fieldError(field, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalidConfig, shortened(field), shortened(fmt.Sprintf(format, args...)))
}

const (
	maxFieldText = 1200 // bytes of a text about a field
	keptAtEnd    = 500  // of them at its end, which says what to do
)

// shortened returns a text about a field without the middle of names that are too long to read, and without
// what could forge a line.
func shortened(s string) string {
	if n := len(s); n > maxFieldText {
		s = s[:maxFieldText-keptAtEnd] + "…" + s[n-keptAtEnd:]
	}
	return printableTo(s, len(s))
}

// aZeroValue says of a field that nothing was made for it, with what to make it.
const aZeroValue = "is a zero value; make one with %s"

// mustBeMade panics where a server was never made, which is a mistake in the program.
func mustBeMade(what string, made bool, with string) {
	if !made {
		panic("connectplugin: " + what + " is nil or a zero value; make one with " + with)
	}
}

// errNoHTTPRequest is the error of an HTTP client without a request.
var errNoHTTPRequest = errors.New("the HTTP request, or its URL, is nil; make one with http.NewRequestWithContext")

// checkRequest refuses a request that goes nowhere.
func checkRequest(r *http.Request) error {
	if r == nil || r.URL == nil {
		return errNoHTTPRequest
	}
	return nil
}

// errUnmade says what is wrong with a client that NewClient did not make.
var errUnmade = fmt.Errorf("%w: it was not made with NewClient, for which a Client{} cannot stand in", ErrClientNotConnected)

// keyStack is the attribute of the log with the stack of a panic.
const keyStack = "stack"

// logged is an error as attributes of the log, with the stack of a panic of code of the user's.
func logged(err error) []any {
	out := []any{keyError, err}
	if p, ok := errors.AsType[*guest.PanicError](err); ok && len(p.Stack) > 0 {
		out = append(out, keyStack, printableStack(string(p.Stack)))
	}
	return out
}

// errUntouched is of a request with which certainly nothing was done.
var errUntouched = errors.New("nothing was done with the request")

// untouchedError is the failure of a request that did not leave this process, or that its receiver says it did nothing with.
type untouchedError struct{ error }

func (e untouchedError) Unwrap() error      { return e.error }
func (untouchedError) Is(target error) bool { return target == errUntouched }

// usersFault reports that code of the user's panicked or does not return.
func usersFault(err error) bool {
	_, panicked := errors.AsType[*guest.PanicError](err)
	return panicked || errors.Is(err, guest.ErrRuns)
}

// isServedOn says of a listener that it is somebody's already.
const isServedOn = "serves another host or plugin of this process already, which would take half of the connections; " +
	"give each one of its own, made with net.Listen"

// isNegative says of a field that is, what to write: zero of each such field is its default.
const isNegative = "is negative; write 0 for the default, or more"

// leastDuration is the least of what bounds a call, a wait or an end: what is shorter is over before anything was done, as a bare
// number is in the place of a duration, which counts nanoseconds.
const leastDuration = time.Millisecond

// leastInterval is the least time between two questions or reports: what is shorter keeps host and plugin busy.
const leastInterval = 10 * time.Millisecond

// reasonMissing is why a plugin is degraded that watches for what is away.
const reasonMissing = "a required service is not available"

// checkDuration refuses a duration that is negative, or too short to be meant.
func checkDuration(field string, d, least time.Duration) error {
	switch {
	case d < 0:
		return fieldError(field, isNegative)
	case d > 0 && d < time.Microsecond:
		return fieldError(field, "%s is too short; write %s or more, or 0 for the default "+
			"(a bare number counts nanoseconds: write %d * time.Second)", d, least, d)
	case d > 0 && d < least:
		return fieldError(field, "%s is too short; write %s or more, or 0 for the default", d, least)
	}
	return nil
}

// isTypedNil says of a field that holds a nil pointer of some type, what to write.
const isTypedNil = "holds a nil pointer; write nil itself, or make one"

// checkInterceptors refuses interceptors that are nil.
func checkInterceptors(all []connect.Interceptor) error {
	for i, interceptor := range all {
		if isNil(interceptor) {
			return fieldError(fmt.Sprintf("Interceptors[%d]", i), "is nil; remove it")
		}
	}
	return nil
}

// isNil reports whether an interface is nil, or holds a nil pointer or function.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	of := reflect.ValueOf(v)
	return (of.Kind() == reflect.Pointer || of.Kind() == reflect.Func) && of.IsNil()
}

// Errors to peers. They are constant: what happened goes to the host's log and
// audit sink, a stranger gets nothing to learn from.
var (
	errUnauthenticated = errors.New("unauthenticated")
	errPlaintext       = errors.New("plaintext is not served here: use https (or, for development, ServeConfig.AllowInsecure)")
	errUnbound         = errors.New("the service that was called belongs to no host; the log of its program says what to do")
	errBare            = errors.New("the service that was called is mounted without its handler; the log of its program says what to do")
	errDenied          = errors.New("permission denied")
	errNotAvailable    = errors.New("not available")
	errTooMany         = errors.New("too many requests")
	errTooManyBytes    = errors.New("too many bytes")
	errTooManyCalls    = errors.New("too many open calls")
	errTooManyWatches  = errors.New("too many open watches")
	errTooManyGrants   = errors.New("too many grants")
	errTooManyServices = errors.New("too many registrations")
	errTooManyOfType   = errors.New("too many registrations of this type")
	errTooManyOfFleet  = errors.New("too many registrations of all instances of the plugin")
	errTooManyInAll    = errors.New("too many registrations in all")
	errTooManyLookups  = errors.New("too many look-ups of names")
	errTooManyFollow   = errors.New("too many followers")
	errTooManyPending  = errors.New("too many handshakes at a time")
	errIdentityEnded   = errors.New("identity ended")
	errGrantRevoked    = errors.New("grant revoked")
	errWithdrawn       = errors.New("not allowed any more")
	errIdle            = errors.New("nothing moved for too long")
	errSlowBody        = errors.New("the message did not come in time")
	errShuttingDown    = errors.New("host is shutting down")
	errOtherAddress    = errors.New("base_url names another address")
	errHostsOwnAddress = errors.New("the host itself listens there")
	errHeadersTooLarge = errors.New("headers or trailers are too large")
	errPathOverlaps    = errors.New("endpoint_path: overlaps the path of another type that this plugin registered")
	errTypeTaken       = errors.New("another plugin provides the service type")
	errProviderBusy    = errors.New("the provider has no room for the call")
	errManyIdentities  = errors.New("the host has as many live identities as it may; one that shows no sign of life ends with its lease")
	errManyInstances   = errors.New("this self id has as many live identities as it may; one that shows no sign of life ends with its lease")
	errManyFromPeer    = errors.New("this address has as many live identities as it may; one that shows no sign of life ends with its lease")
)

// errTooManyRegistered is what a plugin is told that has no room for a registration, by what there is too much of.
var errTooManyRegistered = map[string]error{
	tooManyServices: errTooManyServices, tooManyServicesOfFleet: errTooManyOfFleet,
	tooManyOfType: errTooManyOfType, tooManyServicesInAll: errTooManyInAll,
}

// What there is too much of, as the audit has it: with the fields that set how much there may be.
const (
	tooManyRequests   = "request rate (Limits.RequestsPerSecond, Limits.RequestBurst)"
	tooManyRenewals   = "rate of renewals (Limits.HandshakesPerSecond, Limits.HandshakeBurst)"
	tooManyHandshakes = "handshakes (Limits.HandshakesPerSecond, Limits.HandshakeBurst)"
	tooManyEnrolments = "enrolments in all (Limits.EnrolmentsPerSecond, Limits.EnrolmentBurst)"
	tooManyChanges    = "rate of changes (Limits.ChangesPerSecond, Limits.ChangeBurst)"
	tooManyBytes      = "bytes (Limits.BytesPerSecond, Limits.BytesBurst)"
	tooManyLookups    = "look-ups of names in base_url of one plugin (Limits.MaxLookupsPerPlugin)"
	tooManyCalls      = "open calls of one caller (Limits.MaxOpenCallsPerIdentity)"
	tooManyInAll      = "open calls of all together (Limits.MaxOpenCalls)"
	tooManyWatches    = "watches of one caller (Limits.MaxWatchesPerPlugin)"
	tooManyGrants     = "grants (Limits.MaxGrantsPerIdentity)"
	tooManyServices   = "registrations of one plugin (Limits.MaxRegistrationsPerPlugin)"
	tooManyOfType     = "registrations of one type (Limits.MaxRegistrationsPerType)"

	// Of those that share bounds: the instances of a plugin, or the identities of an address that prove nothing.
	tooManyCallsOfFleet    = "open calls of all instances of one plugin (Limits.MaxOpenCallsPerIdentity, Limits.MaxOpenCalls)"
	tooManyWatchesOfFleet  = "watches of all instances of one plugin (a quarter of Limits.MaxWatches, or 8 an instance)"
	tooManyGrantsOfFleet   = "grants of all instances of one plugin (four times Limits.MaxGrantsPerIdentity, or 8 an instance)"
	tooManyServicesOfFleet = "registrations of all instances of one plugin (a quarter of Limits.MaxRegistrations, or 8 an instance)"
	tooManyHeldOfFleet     = "connections of all instances of one plugin (a quarter of Limits.MaxConnections): more count for their address"

	tooManyLookupsInAll  = "look-ups of names in base_url of all together (Limits.MaxLookups)"
	tooManyWatchesInAll  = "watches of all together (Limits.MaxWatches)"
	tooManyServicesInAll = "registrations of all together (Limits.MaxRegistrations)"
)

// What of one request or connection is too large or too slow, or what of connections there is too much, as the
// audit has it.
const (
	tooLargeHead = "headers or trailers of a request (Limits.MaxHeaderBytes)"
	// That a message is too large is seen before it is decompressed, and while it is.
	tooLargeMessage   = "bytes of a message (Limits.MaxMessageBytes, and compressed Limits.MaxDecompressionRatio)"
	tooLargeHandshake = "bytes of a handshake (Limits.MaxHandshakeBytes, and compressed Limits.MaxDecompressionRatio)"
	tooLargeField     = "entries or bytes of a field of a message (Limits.MaxFieldEntries, Limits.MaxFieldBytes)"
	tooLargeCall      = "bytes of a request's body (Limits.MaxCallBytes)"
	tooSwollen        = "bytes of a message that is decompressed (Limits.MaxDecompressedBytes, Limits.MaxDecompressionRatio)"
	tooSlowBody       = "time for a message to come (Limits.BodyTimeout)"
	tooSlowCall       = "time for a call to the host's own services (Limits.CallTimeout)"
	tooSlowTLS        = "time for a TLS handshake (Limits.ReadHeaderTimeout)"
	tooSlowPreface    = "time from the TLS handshake to the beginning of HTTP/2 (Limits.ReadHeaderTimeout)"
	tooSilent         = "time for an answer to the host's PING (Limits.KeepAliveTimeout)"
	tooStuck          = "time in which the peer takes nothing of what the host sends (Limits.WriteTimeout)"
	tooOld            = "time that a connection outlives the certificate shown on it (Limits.CertificateOvertime)"
	tooManyNew        = "new connections of one address (Limits.ConnectionsPerSecond, Limits.ConnectionBurst)"
	tooManyUnproven   = "connections of one address that proved nothing (Limits.MaxConnectionsPerPeer)"
	tooManyDisplaced  = tooManyUnproven + "; one that was silent made room"
	tooManyOpen       = "connections in all (Limits.MaxConnections); one of the address that has most makes room, or newcomers wait"
	tooFewDescriptors = "descriptors of this process (ulimit -n): none is left, and newcomers wait"
	tooManyAtProvider = "streams that the provider takes, of which the calls of one plugin have three quarters at most"
	tooManyRefusals   = "requests that were refused, so that the next ones wait (Limits.RefusalsPerSecond, Limits.RefusalBurst)"
	tooManyAnnounced  = "bytes of metadata that watchers get later (Limits.AnnouncedBytesPerSecond, Limits.AnnouncedBytesBurst)"
	tooManyPending    = "handshakes of one address of which nothing is proven (Limits.MaxPendingHandshakesPerPeer)"

	tooManyPendingInAll = "handshakes of all together of which nothing is proven (Limits.MaxPendingHandshakes)"
)

// swellError is what reading a message gives that cannot be decompressed within its bounds.
func swellError(err error) error {
	code := connect.CodeResourceExhausted
	switch {
	case errors.Is(err, swell.ErrEncoding):
		code = connect.CodeUnimplemented
	case errors.Is(err, swell.ErrCorrupt):
		code = connect.CodeInvalidArgument
	}
	return connect.NewError(code, err)
}

// busy says that the host has too much to do, and when to try again: in a
// google.rpc.RetryInfo, as gRPC's clients expect it. Zero does not say when.
func busy(after time.Duration) *connect.Error { return busyFor(errTooMany, after) }

// busyFor is busy with what there is too much of.
func busyFor(what error, after time.Duration) *connect.Error {
	err := connect.NewError(connect.CodeResourceExhausted, what)
	if after <= 0 {
		return err
	}
	err.Meta().Set(headerRetryAfter, Rate{RequestsPerSecond: 1 / after.Seconds()}.retryAfter())
	if detail, failed := connect.NewErrorDetail(&anypb.Any{TypeUrl: typeURLs + retryInfo, Value: retryMessage(after)}); failed == nil {
		err.AddDetail(detail)
	}
	return err
}

// retryMessage writes a RetryInfo, whose generated code the library does without.
func retryMessage(after time.Duration) []byte {
	delay, _ := proto.Marshal(durationpb.New(after))
	return protowire.AppendBytes(protowire.AppendTag(nil, fieldRetryDelay, protowire.BytesType), delay)
}

// retryInfo is the type of an error detail that says when to try again, and typeURLs what
// stands before the type of any.
const (
	retryInfo       = "google.rpc.RetryInfo"
	typeURLs        = "type.googleapis.com/"
	fieldRetryDelay = 1
)

var errorWriter = connect.NewErrorWriter()

// refuse answers in the protocol of the request. The error's text is one of the
// constants in errors.go.
func refuse(w http.ResponseWriter, r *http.Request, code connect.Code, err error) {
	w.Header().Set(headerCacheControl, noStore)
	// RFC 6750, section 3. It says that nothing was done with the request, so that a client
	// may send it again with another credential: not where a call ended with its identity.
	if code == connect.CodeUnauthenticated && errors.Is(err, errUnauthenticated) {
		w.Header().Set(headerChallenge, bearerChallenge)
	}
	if errorWriter.IsSupported(r) {
		if _, ok := err.(*connect.Error); !ok { //nolint:errorlint // wrapped errors keep their own text
			err = connect.NewError(code, err)
		}
		writeError(w, r, err)
		return
	}
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		if after := coded.Meta().Get(headerRetryAfter); after != "" {
			w.Header().Set(headerRetryAfter, after)
		}
		err = errors.Unwrap(coded)
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.Error(w, err.Error(), httpStatus(code))
}

// writeError writes an error in the protocol of the request. One of gRPC is a single block of headers ("Trailers-Only"):
// behind headers it would be tried again by no caller's retryPolicy, as these settle a call.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	_ = errorWriter.Write(oneBlock{w}, r, err)
	if w.Header().Get(headerTrailer) != "" {
		w.Header().Del(headerTrailer)
		w.WriteHeader(http.StatusOK)
	}
}

// oneBlock is a response whose headers wait for the fields that are announced as its trailer.
type oneBlock struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w oneBlock) WriteHeader(status int) {
	if w.Header().Get(headerTrailer) == "" {
		w.ResponseWriter.WriteHeader(status)
	}
}

// tooLarge answers a request whose headers are larger than is taken.
func tooLarge(w http.ResponseWriter, r *http.Request) {
	refuse(tooLargeWriter{w}, r, connect.CodeResourceExhausted, errHeadersTooLarge)
}

// tooLargeWriter answers with the status of RFC 6585, section 5.
type tooLargeWriter struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w tooLargeWriter) WriteHeader(status int) {
	if status == http.StatusTooManyRequests {
		status = http.StatusRequestHeaderFieldsTooLarge
	}
	w.ResponseWriter.WriteHeader(status)
}

// httpStatus is the HTTP status of a code outside the RPC protocols.
func httpStatus(code connect.Code) int {
	switch code {
	case connect.CodeUnauthenticated:
		return http.StatusUnauthorized
	case connect.CodePermissionDenied:
		return http.StatusForbidden
	case connect.CodeNotFound:
		return http.StatusNotFound
	case connect.CodeResourceExhausted:
		return http.StatusTooManyRequests
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeOutOfRange:
		return http.StatusBadRequest
	case connect.CodeUnavailable:
		return http.StatusServiceUnavailable
	case connect.CodeCanceled, connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeAlreadyExists,
		connect.CodeAborted, connect.CodeUnimplemented, connect.CodeInternal, connect.CodeDataLoss:
	}
	return http.StatusInternalServerError
}

// appVersion is a configured application version, and the field that it is in.
type appVersion struct {
	field string
	v     int
}

// checkVersions refuses what the wire has no room for.
func checkVersions(versions ...appVersion) error {
	for _, version := range versions {
		switch {
		case version.v < 0:
			return fieldError(version.field, isNegative)
		case version.v > math.MaxInt32:
			return fieldError(version.field, "is %d, which is more than a version can be; write %d or less", version.v, math.MaxInt32)
		}
	}
	return nil
}

// checkCookie refuses a magic cookie that no handshake has room for.
func checkCookie(key, value string) error {
	for _, c := range []struct{ field, text string }{{"MagicCookieKey", key}, {"MagicCookieValue", value}} {
		if len(c.text) > maxCookieLen {
			return fieldError(c.field, "has %d bytes, and a handshake takes %d at most; it is no secret, and need not be long",
				len(c.text), maxCookieLen)
		}
	}
	return nil
}

// notServed is why nobody is served any more, and what to do where somebody else closed the listener.
func notServed(listener string, err error) error {
	if errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve: %s was closed meanwhile; each host or plugin closes the one that it serves on when it ends, "+
			"so give each one of its own: %w", listener, err)
	}
	return fmt.Errorf("serve: %w", err)
}
