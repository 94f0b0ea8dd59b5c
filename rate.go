package connectplugin

import (
	"math"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

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
