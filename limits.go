package connectplugin

import (
	"math"
	"reflect"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/limiter"
)

// Limits holds every bound of a host. The zero value of each field is the
// default that its comment gives; a negative value, or a time of 2 ns to 1 µs, is refused. Limits are read
// when the host is made and do not change afterwards.
type Limits struct { //nolint:recvcheck // rates are computed on each call, where a copy would take a frame of half a KiB
	// MaxHeaderBytes bounds the header block of one request, in bytes, as HTTP/2 counts it:
	// each field costs 32 more, so that there are some 1,000 fields at most. A request with more than 64 has the next such one of all
	// instances of a plugin, or of an address that has none, wait: on two processors a millisecond for 100 fields, 17 for 300, 190 for
	// 900. Beyond it the answer is status 431, or resource_exhausted in gRPC, and the connection goes on; a peer
	// that sends eight times as much of one request, or eight times 16 KiB where that is more, is
	// cut off. A request with such a trailer is reset with ENHANCE_YOUR_CALM. Default 32 KiB.
	MaxHeaderBytes int
	// MaxMessageBytes bounds one message to the host's services, in bytes,
	// before it is decoded and again while it is decompressed; one that is larger is
	// resource_exhausted. Default 1 MiB.
	MaxMessageBytes int
	// MaxFieldEntries bounds the entries of each list and map in such a message, and MaxFieldBytes
	// the length of each text, below what both sides agree on for each of them ([MaxSelfIDLen],
	// [MaxMetadataEntries] and so on); one that has more is invalid_argument. Defaults 256 and
	// 4,096, the most that any field may have, and more than that is refused.
	MaxFieldEntries int
	// MaxFieldBytes is the length to MaxFieldEntries, in bytes. Default 4,096.
	MaxFieldBytes int
	// MaxCallBytes bounds the body of one request to a capability, to one of the
	// host's own plugin services or to a plugin in the host's own process
	// ([ServiceRouter.RegisterPluginHandler]), in bytes. Reading more fails, which handlers of
	// Connect answer with resource_exhausted. Default 64 MiB.
	MaxCallBytes int64
	// MaxDecompressedBytes bounds what one message of such a request becomes when it is
	// decompressed, in bytes; beyond it the call ends with resource_exhausted before its
	// handler has the message. One that is compressed with anything but gzip is
	// unimplemented: the host could not look into it. Default 64 MiB.
	MaxDecompressedBytes int64
	// MaxDecompressionRatio bounds how many times its compressed size a message to the host's
	// process becomes, once it is more than 1 MiB; beyond it the call ends with
	// resource_exhausted. Default 100.
	MaxDecompressionRatio int
	// MaxOpenCalls bounds the requests with a caller that are being served, from their first
	// byte to their last; one more is resource_exhausted, and when to come again. Each holds
	// some 24 KiB, and up to 512 KiB where somebody does not read. It counts once more for each 16 KiB of its head, of its answer's (text,
	// and 128 bytes a field), and of a message to the host's own services. A watch counts in MaxWatches, here for a head. Default 65,536.
	MaxOpenCalls int
	// MaxOpenCallsPerIdentity bounds those of one identity, or of one address that has none. All instances of a plugin
	// have four times as many, as have all identities of one address that proved nothing: no more than three quarters
	// of MaxOpenCalls, unless one may have more. Apart from them as many answers of theirs, or of an address that has none, may wait
	// for windows of their peer when they were given; one more is reset with ENHANCE_YOUR_CALM. Default 1,024.
	MaxOpenCallsPerIdentity int
	// MaxUnreadBytesPerIdentity bounds, in bytes, what providers may send ahead on the routed calls of one
	// identity (for all instances see RequestsPerSecond), beyond 32 KiB a call. A call that finds no room here is
	// slower than others where its answer is long. Default 32 MiB.
	MaxUnreadBytesPerIdentity int64
	// MaxConnections bounds the open connections. A newcomer beyond takes the place of one of the
	// address that has most which proved nothing: the one of which nothing was
	// served for longest. Where all proved something, newcomers wait in the listener's queue. Default 10,000.
	MaxConnections int
	// MaxConnectionsPerPeer bounds those of one peer address (a /64 for IPv6) that
	// proved nothing: no runtime identity and no certificate. A newcomer takes the place of
	// the one of which nothing was served for longest, if that was for 5 s, and is refused otherwise: accepted, and closed before
	// TLS without a word, which every protocol reports as unavailable. So is one whose place is taken, at whatever it is. The holder of a
	// certificate has as many that do not count against its address, and a runtime identity has 64, or fewer where this
	// is fewer, and all instances of a plugin a quarter of MaxConnections, or 2 each where those are more. Default 1,000.
	MaxConnectionsPerPeer int
	// ConnectionsPerSecond and ConnectionBurst limit the new connections of one peer
	// address. One that comes faster is closed before TLS, 200 ms later where few others are.
	// Defaults 500 and 2,000, or MaxConnectionsPerPeer where that is more than the latter.
	ConnectionsPerSecond float64
	// ConnectionBurst is the burst to ConnectionsPerSecond. Default 2,000.
	ConnectionBurst int
	// PingsPerSecond and PingBurst limit the PINGs of one connection, beside those that its
	// calls and its data explain. Whoever sends more is cut off, with the reason in a GOAWAY.
	// Defaults 5 and 200.
	PingsPerSecond float64
	// PingBurst is the burst to PingsPerSecond. Default 200.
	PingBurst int
	// RefusalsPerSecond and RefusalBurst limit the requests that the host refuses, or cannot read, beside one for each that it serves.
	// A connection of nobody that the host knows is cut off, with the reason in a GOAWAY. Of an identity (see RequestsPerSecond) the
	// next request waits on all of its connections until the rate allows it, a second at most on each; cut off it is for streams
	// beyond MaxStreamsPerConnection alone, of which no request was read. Defaults 100 and 2,000.
	RefusalsPerSecond float64
	// RefusalBurst is the burst to RefusalsPerSecond. Default 2,000.
	RefusalBurst int
	// MaxStreamsPerConnection bounds the concurrent HTTP/2 streams of one connection. One more is reset with REFUSED_STREAM:
	// nothing was done with it, and libraries wait for room, as the SETTINGS tell them to. Default 256.
	MaxStreamsPerConnection int
	// ReadHeaderTimeout bounds the TLS handshake, without the time in which it waits for those of
	// others, the time from it to the beginning of HTTP/2, and each request header; then the connection closes without a word. Default 10 s.
	ReadHeaderTimeout time.Duration
	// BodyTimeout bounds how long the message of a call to the host's own services may take
	// to arrive, that of a watch among them; then the call ends with deadline_exceeded.
	// Default 10 s.
	BodyTimeout time.Duration
	// IdleTimeout ends a connection without streams, with a GOAWAY (NO_ERROR). Default 2 min.
	IdleTimeout time.Duration
	// KeepAliveInterval is how long nothing may come on a connection to the host before it asks
	// with a PING whether the peer is still there. It is not about connections that the host makes
	// to providers: there it asks after 30 s and waits for 10 s, whatever is set here. Default 30 s.
	KeepAliveInterval time.Duration
	// KeepAliveTimeout is how long the answer may take. Who does not answer is disconnected, without a word. Default 15 s.
	KeepAliveTimeout time.Duration
	// WriteTimeout is how long a peer may take none of what is written to its connection before it is
	// disconnected; a window that it does not open is nothing of that. Default 30 s.
	WriteTimeout time.Duration
	// CertificateOvertime is how long a connection may outlive the certificate that its
	// client showed, or the plugin that the host calls over it, unless a later one of the same
	// identity is shown on another connection. Default 1 min.
	CertificateOvertime time.Duration
	// CallTimeout bounds one unary call to the host's own services, whose context ends then:
	// deadline_exceeded, if its message still comes or the handler heeds it. Default 30 s.
	CallTimeout time.Duration
	// StreamIdleTimeout ends a routed call in which nothing moved in either
	// direction, with deadline_exceeded. Default 15 min.
	StreamIdleTimeout time.Duration
	// DialTimeout bounds how long a call waits for a connection to a plugin, TLS included. An
	// attempt that somebody answered goes on for three times as long, for later calls. A call that
	// states a timeout waits until that is all but over: then it goes to another provider, or ends
	// as unavailable. Default 5 s.
	DialTimeout time.Duration

	// MaxHandshakeBytes bounds the message of a handshake, in bytes, before it is decoded and
	// while it is decompressed; one that is larger is resource_exhausted, or invalid_argument where it is
	// seen first that one of its fields is larger than any may be. Default 96 KiB.
	MaxHandshakeBytes int
	// MaxPendingHandshakes bounds the handshakes of which nothing is proven yet. One that comes
	// beyond takes the place of the one that began first, which is resource_exhausted. Each
	// holds MaxHandshakeBytes at most, and one with a large head counts as in MaxOpenCalls.
	// Default 4,096.
	MaxPendingHandshakes int
	// MaxPendingHandshakesPerPeer bounds those of one peer address. Default 1,024.
	MaxPendingHandshakesPerPeer int
	// HandshakesPerSecond and HandshakeBurst limit the handshakes that prove nothing
	// of one peer address (a /64 for IPv6), and apart from them the renewals of one
	// identity, the proven handshakes of one self id, of which as many may come at once
	// as it may have instances, and the refusals of one address or caller that are audited
	// one by one. Beyond them is resource_exhausted, and when to come again. Defaults 10 and 50.
	HandshakesPerSecond float64
	// HandshakeBurst is the burst to HandshakesPerSecond. Default 50.
	HandshakeBurst int
	// EnrolmentsPerSecond and EnrolmentBurst are how many new identities the host takes
	// on in all, those that are proven and the others each. Beyond them it asks plugins
	// to come back later, each at its own time (google.rpc.RetryInfo): so the restart of
	// a host with thousands of plugins is paced. Defaults 250 and 1,000, or
	// HandshakesPerSecond and HandshakeBurst where those are more.
	EnrolmentsPerSecond float64
	// EnrolmentBurst is the burst to EnrolmentsPerSecond. Default 1,000.
	EnrolmentBurst int
	// RequestsPerSecond and RequestBurst limit the requests of one identity over every route; more are
	// resource_exhausted, and when to come again. Of this, of bytes, of those that are announced or unread, and of
	// refusals all instances of a plugin that proved its name have as much as four: a fifth at the same time shares
	// with the first. A new one has what one that ended left, of renewals and changes, too. Defaults 20,000 and 40,000.
	RequestsPerSecond float64
	// RequestBurst is the burst to RequestsPerSecond. Default 40,000.
	RequestBurst int

	// BytesPerSecond and BytesBurst limit the bytes that all connections of one identity (for all instances see
	// RequestsPerSecond) to the host's own listener carry, both ways. Beyond them new requests are resource_exhausted,
	// and when to come again, but for renewals and reports of health; what is under way waits. Defaults 1 GiB and 1 GiB.
	BytesPerSecond float64
	// BytesBurst is the burst to BytesPerSecond. Default 1 GiB.
	BytesBurst int

	// MaxIdentities bounds the live identities; one more is resource_exhausted, and when to come
	// again, as for the two that follow. Default 100,000.
	MaxIdentities int
	// MaxIdentitiesPerSelfID bounds the live instances of one plugin, by its name (see
	// [Policy]), where its policy names no number. Default 100.
	MaxIdentitiesPerSelfID int
	// MaxIdentitiesPerPeer bounds the live identities that one peer address
	// was given without a proof (see [PluginPolicy].AllowUnproven). Default 1,000.
	MaxIdentitiesPerPeer int
	// MaxGrantsPerIdentity bounds the live capability grants of one identity; one more is resource_exhausted. All
	// instances of a plugin have four times as many, or 8 each where those are more. Default 256.
	MaxGrantsPerIdentity int
	// TokenGrace is how long the previous token lives after a renewal.
	// Default 30 s.
	TokenGrace time.Duration

	// ChangesPerSecond and ChangeBurst limit what one identity changes, and so makes others learn of: registering,
	// unregistering, reporting health, opening a watch. More is resource_exhausted, and when to come again. All instances
	// of a plugin have four times as much, of renewals, too, or the square root of their number. Defaults 100 and 1,000.
	ChangesPerSecond float64
	// ChangeBurst is the burst to ChangesPerSecond. Default 1,000.
	ChangeBurst int
	// MaxRegistrations bounds the registrations that provide something, and apart from them those that stand by. One more
	// is resource_exhausted, as for the two that follow. All instances of a plugin have a quarter of them, or 8 each
	// where those are more. Default 100,000.
	MaxRegistrations int
	// MaxRegistrationsPerPlugin bounds those of one identity. Default 64.
	MaxRegistrationsPerPlugin int
	// MaxRegistrationsPerType bounds those of one service type, again apart from those that
	// stand by. Default 10,000.
	MaxRegistrationsPerType int
	// MaxWatches bounds the open watches of services, and apart from them those of the host's health together with those
	// whose message is not there yet. One more is resource_exhausted. All instances of a plugin have a quarter of them, or
	// 8 each where those are more. Default 100,000.
	MaxWatches int
	// MaxWatchesPerPlugin bounds both of one identity, or of one address that has none.
	// Default 64.
	MaxWatchesPerPlugin int
	// WatchEventsPerSecond and WatchEventBurst limit the events that one watch costs. A
	// watch of a type that changes more often gets the state as it is then, with the
	// number of those that it missed: the last state is always among its events.
	// Default 3.
	WatchEventsPerSecond float64
	// WatchEventBurst is the burst to WatchEventsPerSecond. Default 16.
	WatchEventBurst int
	// AnnouncedBytesPerSecond and AnnouncedBytesBurst limit the bytes of metadata that watchers
	// get of the registrations of one identity (see RequestsPerSecond), all of them together. Beyond them they
	// get it later, and of several states the last. Defaults 64 MiB and 256 MiB.
	AnnouncedBytesPerSecond float64
	// AnnouncedBytesBurst is the burst to AnnouncedBytesPerSecond. Default 256 MiB.
	AnnouncedBytesBurst int
	// MaxLookups bounds how many names in the base_url of plugins are looked up at a time; a
	// registration beyond is resource_exhausted, and when to come again. Default 32.
	MaxLookups int
	// MaxLookupsPerPlugin bounds those of one plugin, by its name. Default 4.
	MaxLookupsPerPlugin int
	// LookupTTL is how long it is known where such a name leads; that it leads nowhere is
	// known for 5 s at most. Default 30 s.
	LookupTTL time.Duration
	// WatchBuffer is how many events of a type are kept for watchers that are
	// behind; one that fell further back is resynchronised. Default 64.
	WatchBuffer int
}

// seatHolds is for how many bytes of a large head, of its request or of its answer, a call counts once more.
const seatHolds = 16 << 10

// defaultLimits are the documented defaults.
var defaultLimits = Limits{
	MaxHeaderBytes:              32 << 10,
	MaxMessageBytes:             1 << 20,
	MaxFieldEntries:             maxDeclarations,
	MaxFieldBytes:               MaxMetadataValueLen,
	MaxCallBytes:                64 << 20,
	MaxDecompressedBytes:        64 << 20,
	MaxDecompressionRatio:       100,
	MaxOpenCalls:                65_536,
	MaxOpenCallsPerIdentity:     1_024,
	MaxUnreadBytesPerIdentity:   32 << 20,
	MaxConnections:              10_000,
	MaxConnectionsPerPeer:       1_000,
	ConnectionsPerSecond:        500,
	ConnectionBurst:             2_000,
	PingsPerSecond:              5,
	PingBurst:                   200,
	RefusalsPerSecond:           100,
	RefusalBurst:                2_000,
	MaxStreamsPerConnection:     256,
	ReadHeaderTimeout:           10 * time.Second,
	BodyTimeout:                 10 * time.Second,
	IdleTimeout:                 2 * time.Minute,
	KeepAliveInterval:           pingAfter,
	KeepAliveTimeout:            pingTimeout,
	WriteTimeout:                writeByteTimeout,
	CertificateOvertime:         time.Minute,
	CallTimeout:                 30 * time.Second,
	StreamIdleTimeout:           15 * time.Minute,
	DialTimeout:                 5 * time.Second,
	MaxHandshakeBytes:           96 << 10,
	MaxPendingHandshakes:        4_096,
	MaxPendingHandshakesPerPeer: 1_024,
	HandshakesPerSecond:         10,
	HandshakeBurst:              50,
	EnrolmentsPerSecond:         250,
	EnrolmentBurst:              1_000,
	RequestsPerSecond:           20_000,
	RequestBurst:                40_000,
	BytesPerSecond:              1 << 30,
	BytesBurst:                  1 << 30,
	MaxIdentities:               100_000,
	MaxIdentitiesPerSelfID:      100,
	MaxIdentitiesPerPeer:        1_000,
	MaxGrantsPerIdentity:        256,
	TokenGrace:                  30 * time.Second,
	ChangesPerSecond:            100,
	ChangeBurst:                 1_000,
	MaxRegistrations:            100_000,
	MaxRegistrationsPerPlugin:   64,
	MaxRegistrationsPerType:     10_000,
	MaxWatches:                  100_000,
	MaxWatchesPerPlugin:         64,
	WatchEventsPerSecond:        3,
	WatchEventBurst:             16,
	AnnouncedBytesPerSecond:     64 << 20,
	AnnouncedBytesBurst:         256 << 20,
	MaxLookups:                  32,
	MaxLookupsPerPlugin:         4,
	LookupTTL:                   30 * time.Second,
	WatchBuffer:                 64,
}

// requestRate is that of one identity over every route.
func (l *Limits) requestRate() Rate {
	return Rate{RequestsPerSecond: l.RequestsPerSecond, Burst: l.RequestBurst}
}

// handshakeRate is that of the unproven handshakes of one peer, of the renewals of one
// identity, and of the refusals that are recorded.
func (l *Limits) handshakeRate() Rate {
	return Rate{RequestsPerSecond: l.HandshakesPerSecond, Burst: l.HandshakeBurst}
}

// provenRate is that of the proven handshakes of one self id that may have so many
// instances, all of which may have to enrol at once.
func (l *Limits) provenRate(instances int) Rate {
	return Rate{RequestsPerSecond: l.HandshakesPerSecond, Burst: max(l.HandshakeBurst, instances)}
}

// enrolmentRate is that of new identities in all.
func (l *Limits) enrolmentRate() Rate {
	return Rate{RequestsPerSecond: l.EnrolmentsPerSecond, Burst: l.EnrolmentBurst}
}

// changeRate is that of what one identity changes.
func (l *Limits) changeRate() Rate {
	return Rate{RequestsPerSecond: l.ChangesPerSecond, Burst: l.ChangeBurst}
}

// withDefaults returns a copy in which zero fields hold their defaults.
func (l Limits) withDefaults() Limits {
	if l.EnrolmentsPerSecond == 0 {
		l.EnrolmentsPerSecond = max(defaultLimits.EnrolmentsPerSecond, l.HandshakesPerSecond)
	}
	if l.EnrolmentBurst == 0 {
		l.EnrolmentBurst = max(defaultLimits.EnrolmentBurst, l.HandshakeBurst)
	}
	if l.ConnectionBurst == 0 {
		l.ConnectionBurst = max(defaultLimits.ConnectionBurst, l.MaxConnectionsPerPeer)
	}
	out, def := reflect.ValueOf(&l).Elem(), reflect.ValueOf(defaultLimits)
	for i := range out.NumField() {
		if out.Field(i).IsZero() {
			out.Field(i).Set(def.Field(i))
		}
	}
	return l
}

// validate refuses negative bounds, and durations that nobody means, and names the field.
func (l Limits) validate() error {
	v := reflect.ValueOf(l)
	for i := range v.NumField() {
		f, name := v.Field(i), "Limits."+v.Type().Field(i).Name
		switch d, isTime := reflect.TypeAssert[time.Duration](f); {
		case f.CanFloat() && math.IsNaN(f.Float()):
			return fieldError(name, "is not a number; write 0 for the default or a positive bound")
		case (f.CanInt() && f.Int() < 0) || (f.CanFloat() && f.Float() < 0):
			return fieldError(name, "is negative; write 0 for the default or a positive bound")
		case isTime && d > time.Nanosecond && d < time.Microsecond: // the least that there is means at once
			return checkDuration(name, d, time.Microsecond)
		}
	}
	switch {
	case l.MaxFieldEntries > defaultLimits.MaxFieldEntries:
		return fieldError("Limits.MaxFieldEntries", "is more than %d, the most that any field may have", defaultLimits.MaxFieldEntries)
	case l.MaxFieldBytes > defaultLimits.MaxFieldBytes:
		return fieldError("Limits.MaxFieldBytes", "is more than %d, the most that any field may have", defaultLimits.MaxFieldBytes)
	}
	return nil
}

// Constants of the wire and defaults of the configuration.
const (
	// DefaultMagicCookieKey and DefaultMagicCookieValue tell a plugin from a
	// program started by mistake. The cookie is no secret and proves nothing.
	DefaultMagicCookieKey = "CONNECT_PLUGIN"
	// DefaultMagicCookieValue is the value to [DefaultMagicCookieKey].
	DefaultMagicCookieValue = "d3f40b3c2e1a5f8b9c4d7e6a1b2c3d4e"
	// DefaultRuntimeTokenTTL is how long a runtime token lives without renewal.
	DefaultRuntimeTokenTTL time.Duration = 24 * time.Hour
	// DefaultCapabilityGrantTTL is how long a capability grant lives.
	DefaultCapabilityGrantTTL time.Duration = time.Hour

	defaultAddr            = "127.0.0.1:8443"
	defaultShutdownTimeout = 10 * time.Second // of a plugin
	defaultHostShutdown    = 30 * time.Second
	defaultClientTimeout   = 10 * time.Second
	defaultMaxClockSkew    = 2 * time.Minute
	defaultReplayCacheSize = 65_536
	defaultProtocolVersion = 1
	minSecretBytes         = 16
)

// Timeouts of HTTP/2 that protect a server of either side and concern nobody else.
const (
	pingAfter        = 30 * time.Second
	pingTimeout      = 15 * time.Second
	writeByteTimeout = 30 * time.Second
)

const (
	// freeSwelling is up to which size a message may have any ratio.
	freeSwelling = 1 << 20
	// maxRateWait bounds what a peer is asked to wait.
	maxRateWait = time.Minute
	// maxRateLimitKeys bounds the buckets of a [TokenBucketLimiter].
	maxRateLimitKeys = 65_536
	// localRateLimitKey stands for all peers without an IP address: one that they could choose (a Unix socket's path) is no key.
	localRateLimitKey = "local"
	// ipv6SiteBits is the prefix of an IPv6 address that one site holds; whoever holds it can use every address in it (RFC 6177).
	ipv6SiteBits = 64
)

// Rate is a limit on calls: a bucket that holds Burst of them and gains
// RequestsPerSecond each second. The zero Rate lets nothing through, so that a
// limit that was forgotten is noticed at the first call.
type Rate struct {
	// RequestsPerSecond is how many calls per second pass in the long run. With
	// zero, less, or NaN nothing is regained after Burst. With +Inf every call
	// passes.
	RequestsPerSecond float64
	// Burst is how many calls pass at once after a pause. Zero or less means
	// RequestsPerSecond rounded up: what one second regains.
	Burst int
}

// bucket returns the rate with its defaults.
func (r Rate) bucket() (perSecond float64, burst int) {
	if r.Burst <= 0 && r.RequestsPerSecond > 0 {
		return r.RequestsPerSecond, int(min(math.Ceil(r.RequestsPerSecond), math.MaxInt32))
	}
	return r.RequestsPerSecond, r.Burst
}

// wait returns when one call is regained, a minute at most.
func (r Rate) wait() time.Duration {
	if !(r.RequestsPerSecond > 1/maxRateWait.Seconds()) {
		return maxRateWait
	}
	return time.Duration(float64(time.Second) / r.RequestsPerSecond)
}

// retryAfter returns in whole seconds when one call is regained, and nothing if
// none ever is.
func (r Rate) retryAfter() string {
	if !(r.RequestsPerSecond > 0) {
		return ""
	}
	seconds := min(math.Ceil(1/r.RequestsPerSecond), math.MaxInt32)
	return strconv.Itoa(max(1, int(seconds)))
}

// RateLimiter decides whether a call may pass. Implementations are safe for
// concurrent use.
type RateLimiter interface {
	// Allow takes one call from the budget of key and reports whether there was
	// one left. It does not block.
	Allow(key string, limit Rate) bool
	// Close releases what the limiter holds. It may be called more than once.
	Close()
}

// TokenBucketLimiter is a [RateLimiter] with a token bucket per key, for 65,536
// keys. A key beyond them takes the place of one whose bucket is full again;
// where there is none, all such keys share one bucket. A flood of keys therefore
// costs bounded memory (about 250 bytes per key) and takes nothing from a key
// that has a bucket.
//
// It has no goroutine and is safe for concurrent use. Make it with
// [NewTokenBucketLimiter]; the zero value refuses every call.
type TokenBucketLimiter struct {
	buckets atomic.Pointer[limiter.Limiter]
}

var _ RateLimiter = (*TokenBucketLimiter)(nil)

// NewTokenBucketLimiter returns a limiter in which every bucket is full.
func NewTokenBucketLimiter() *TokenBucketLimiter {
	l := &TokenBucketLimiter{}
	l.buckets.Store(limiter.New(maxRateLimitKeys))
	return l
}

// Allow takes one call from the bucket of key, which is limited by limit from
// this call on, and reports whether there was one left.
func (l *TokenBucketLimiter) Allow(key string, limit Rate) bool {
	buckets := l.buckets.Load()
	if buckets == nil {
		return false
	}
	perSecond, burst := limit.bucket()
	return buckets.Allow(key, perSecond, burst, time.Now())
}

// Close releases the buckets. After it every call is refused. It may be called
// more than once.
func (l *TokenBucketLimiter) Close() {
	l.buckets.Store(nil)
}
