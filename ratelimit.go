package connectplugin

import (
	"context"
	"net"
	"net/http"

	"connectrpc.com/connect"
)

// RateLimitInterceptor limits unary calls with limiter, each key with limit; a
// call beyond it gets ResourceExhausted and the header Retry-After. On the server
// it comes after authentication, on the client it limits the calls sent.
//
// keyExtractor names whose budget a call spends. Nil means the authenticated
// caller where there is one, and [DefaultRateLimitKeyExtractor] otherwise. In a plugin
// that [ServePlugin] serves, the caller is the plugin that calls, as the host states it,
// with all of its instances. A key that the peer chooses, such as a header, is no limit
// at all. The caller keeps limiter and closes it; a nil limiter means a new
// [TokenBucketLimiter].
//
// By its signature it covers unary calls only. The limits of a [Host]
// ([Limits]) and [RateLimitHTTPHandler] cover streaming calls as well.
func RateLimitInterceptor(limiter RateLimiter, keyExtractor func(connect.AnyRequest) string, limit Rate) connect.UnaryInterceptorFunc {
	limiter = givenLimiter("RateLimitInterceptor", limiter)
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

// givenLimiter is a limiter as it was given, or a new one where it is nil.
func givenLimiter(to string, limiter RateLimiter) RateLimiter {
	if limiter == nil {
		return NewTokenBucketLimiter()
	}
	mustBeMade(to+": the limiter", !isNil(limiter), "NewTokenBucketLimiter")
	return limiter
}

func callRateKey(ctx context.Context, req connect.AnyRequest, keyExtractor func(connect.AnyRequest) string) string {
	if keyExtractor != nil {
		return keyExtractor(req)
	}
	if key, ok := callerRateKey(ctx); ok {
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
	mustBeMade("RateLimitHTTPHandler: the handler", !isNil(handler), "http.HandlerFunc")
	limiter = givenLimiter("RateLimitHTTPHandler", limiter)
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
// key, where an authenticating handler in front put one into the context, as that of
// [ServePlugin] does with the plugin that calls, and otherwise the address of the peer
// as [DefaultRateLimitKeyExtractor] does.
func HTTPRateLimitKeyExtractor(r *http.Request) string {
	if key, ok := callerRateKey(r.Context()); ok {
		return key
	}
	return addressKey(r.RemoteAddr)
}

// callerRateKey returns the key of who calls, where that is known: to this process, or else to the host that calls it as
// a plugin. That host is a plugin's only peer, so that by address all who call the plugin would share one budget.
func callerRateKey(ctx context.Context) (string, bool) {
	if key, ok := rateKeyFromContext(ctx); ok {
		return key, true
	}
	c, ok := statedCaller(ctx)
	switch {
	case !ok:
		return "", false
	case c.SelfID == "": // the host is of the first wire version
		return "instance:" + c.RuntimeID, true
	default:
		return "plugin:" + c.SelfID, true
	}
}
