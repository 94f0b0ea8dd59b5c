package connectplugin

import (
	"context"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/limiter"
)

const (
	// maxRateLimitKeys bounds the buckets of a [TokenBucketLimiter].
	maxRateLimitKeys = 65_536
	// localRateLimitKey stands for all peers without an IP address. They could
	// choose the address that they have (a Unix socket's path), so it is no key.
	localRateLimitKey = "local"
	// ipv6SiteBits is the prefix of an IPv6 address that one site holds; whoever
	// holds it can use every address in it (RFC 6177).
	ipv6SiteBits = 64

	headerRetryAfter = "Retry-After"
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

// RateLimitInterceptor limits unary calls with limiter, each key with limit; a
// call beyond it gets ResourceExhausted and the header Retry-After. On the server
// it comes after authentication, on the client it limits the calls sent.
//
// keyExtractor names whose budget a call spends. Nil means the authenticated
// caller where there is one, and [DefaultRateLimitKeyExtractor] otherwise. A key
// that the peer chooses, such as a header, is no limit at all. The caller keeps
// limiter and closes it; a nil limiter means a new [TokenBucketLimiter].
//
// By its signature it covers unary calls only. The limits of a [Host]
// ([Limits]) and [RateLimitHTTPHandler] cover streaming calls as well.
func RateLimitInterceptor(limiter RateLimiter, keyExtractor func(connect.AnyRequest) string, limit Rate) connect.UnaryInterceptorFunc {
	if limiter == nil {
		limiter = NewTokenBucketLimiter()
	}
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if !limiter.Allow(callRateKey(ctx, req, keyExtractor), limit) {
				err := connect.NewError(connect.CodeResourceExhausted, errTooMany)
				if after := limit.retryAfter(); after != "" {
					err.Meta().Set(headerRetryAfter, after)
				}
				return nil, err
			}
			return next(ctx, req)
		}
	}
}

func callRateKey(ctx context.Context, req connect.AnyRequest, keyExtractor func(connect.AnyRequest) string) string {
	if keyExtractor != nil {
		return keyExtractor(req)
	}
	if key, ok := rateKeyFromContext(ctx); ok {
		return key
	}
	return DefaultRateLimitKeyExtractor(req)
}

// RateLimitHTTPHandler limits the requests to handler, streaming calls and
// everything else alike, each key with limit. A request beyond it gets
// ResourceExhausted in the protocol of the call, or status 429, and the header
// Retry-After; handler does not see it.
//
// keyExtractor names whose budget a request spends; nil means
// [HTTPRateLimitKeyExtractor]. The caller keeps limiter and closes it; a nil
// limiter means a new [TokenBucketLimiter].
func RateLimitHTTPHandler(handler http.Handler, limiter RateLimiter, keyExtractor func(*http.Request) string, limit Rate) http.Handler {
	if limiter == nil {
		limiter = NewTokenBucketLimiter()
	}
	if keyExtractor == nil {
		keyExtractor = HTTPRateLimitKeyExtractor
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !limiter.Allow(keyExtractor(r), limit) {
			if after := limit.retryAfter(); after != "" {
				w.Header().Set(headerRetryAfter, after)
			}
			refuse(w, r, connect.CodeResourceExhausted, errTooMany)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// DefaultRateLimitKeyExtractor returns the address of the call's peer as a key:
// without the port, and of an IPv6 address the /64 that it is in. Peers without
// an IP address share one key. On the client, where the peer is the host that is
// called, its name is the key. No header has a part in it: a proxy in front of
// the server is one peer.
//
// A request knows no authenticated caller; leave the extractor of
// [RateLimitInterceptor] nil to limit by it.
func DefaultRateLimitKeyExtractor(req connect.AnyRequest) string {
	addr := req.Peer().Addr
	if !req.Spec().IsClient {
		return addressKey(addr)
	}
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// HTTPRateLimitKeyExtractor returns the authenticated caller of the request as a
// key, where an authenticating handler in front put one into the context, and
// otherwise the address of the peer as [DefaultRateLimitKeyExtractor] does.
func HTTPRateLimitKeyExtractor(r *http.Request) string {
	if key, ok := rateKeyFromContext(r.Context()); ok {
		return key
	}
	return addressKey(r.RemoteAddr)
}

// addressKey returns the key of an address with or without a port: an IPv4
// address, the /64 of an IPv6 address, or one key for everything else.
func addressKey(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		withPort, err := netip.ParseAddrPort(addr)
		if err != nil {
			return localRateLimitKey
		}
		ip = withPort.Addr()
	}
	ip = ip.Unmap()
	if ip.Is4() {
		return ip.String()
	}
	site, err := ip.Prefix(ipv6SiteBits)
	if err != nil {
		return localRateLimitKey
	}
	return site.String()
}
