package connectpluginv2

import (
	"context"
	"errors"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
)

// ClientInterceptor makes an interceptor for clients of interceptors of the first version,
// which run in their order: [connectplugin.RetryInterceptor],
// [connectplugin.CircuitBreakerInterceptor], [connectplugin.RateLimitInterceptor],
// [connectplugin.ComposeAuthClient] and others of their kind. They see procedure, headers
// and outcome of unary calls, as an error of their own version, and may repeat a call; what
// they do to a message is lost. Streams pass by them.
func ClientInterceptor(interceptors ...connectv1.UnaryInterceptorFunc) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if spec.StreamType != connect.StreamTypeUnary {
				return next(ctx, spec)
			}
			return newUnaryCall(ctx, spec, next, interceptors), nil
		}
	}
}

// ServerInterceptor makes an interceptor for servers of interceptors of the first version:
// [connectplugin.ComposeAuthServer], [connectplugin.RateLimitInterceptor] and others of their
// kind. They run before anything of the request is read, for unary calls and for streams;
// they see procedure, peer and headers and, when the handler is through, its error as one of their
// own version. They do not see messages: an interceptor that looks at them is not for this.
// What they attach to an error of theirs, such as Retry-After, is in the header of the answer.
func ServerInterceptor(interceptors ...connectv1.UnaryInterceptorFunc) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			info, _ := connect.CallInfoForServerContext(ctx)
			var own error // the handler's, which goes on as it is
			serve := chain(interceptors, func(ctx context.Context, _ connectv1.AnyRequest) (connectv1.AnyResponse, error) {
				if own = next(ctx, spec, stream); own != nil {
					return nil, ToV1(own)
				}
				return emptyResponse(), nil
			})
			_, err := serve(ctx, newRequest(spec, info, false))
			if own != nil {
				return own
			}
			return refused(err, info)
		}
	}
}

// refused is the error of an interceptor, whose headers go with the answer.
func refused(err error, info *connect.CallInfo) error {
	if coded, ok := errors.AsType[*connectv1.Error](err); ok && info != nil && !connectv1.IsWireError(err) {
		for key, values := range coded.Meta() {
			info.ResponseHeader().SetValues(key, values)
		}
	}
	return FromV1(err)
}
