package connectpluginv2

import (
	"context"
	"errors"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/anypb"
)

// typeURLs stands before the type of an any.
const typeURLs = "type.googleapis.com/"

// FromV1 returns an error of Connect's second version with code, text and details of err,
// and err for its cause. An error that is one already, one without a code, and nil stay as they are.
// What came over the wire is remote (see [connect.Error.IsRemote]).
func FromV1(err error) error {
	coded, ok := errors.AsType[*connectv1.Error](err)
	if !ok || coded == nil || isSecond(err) {
		return err
	}
	if own, ok := coded.Unwrap().(*spoken); ok { //nolint:errorlint // the way back of ToV1
		return own.err
	}
	out := connect.NewError(connect.Code(coded.Code()), coded.Message()).WithCause(err)
	for _, detail := range coded.Details() {
		out = out.WithDetail(&connect.ErrorDetail{Type: detail.Type(), Value: detail.Bytes()})
	}
	if connectv1.IsWireError(err) {
		out = out.WithRemote()
	}
	return out //nolint:wrapcheck // made here
}

// isSecond reports whether the outer one of the errors with a code is of the second version.
func isSecond(err error) bool {
	if _, ok := errors.AsType[*connect.Error](err); !ok {
		return false
	}
	first, ok := errors.AsType[*connectv1.Error](err)
	if !ok || first == nil {
		return true
	}
	_, below := errors.AsType[*connect.Error](first.Unwrap())
	return !below
}

// ToV1 is the way back: an error of Connect's first version with the same code, text and
// details, which wraps err.
func ToV1(err error) error {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok || coded == nil || !isSecond(err) {
		return err
	}
	made := connectv1.NewError
	if coded.IsRemote() {
		made = connectv1.NewWireError
	}
	out := made(connectv1.Code(coded.Code()), &spoken{text: coded.Message(), err: err})
	for _, detail := range coded.Details() {
		if d, failed := connectv1.NewErrorDetail(&anypb.Any{TypeUrl: typeURLs + detail.Type, Value: detail.Value}); failed == nil {
			out.AddDetail(d)
		}
	}
	return out
}

// spoken is an error with the text that goes over the wire.
type spoken struct {
	text string
	err  error
}

func (s *spoken) Error() string { return s.text }
func (s *spoken) Unwrap() error { return s.err }

// Forward returns an interceptor for servers whose handlers pass on what another service
// answered: with code, text and details, whichever version of Connect the handler called
// with. Without it, a server of the second version answers internal to what a call of that
// version returned, and unknown to what one of the first did, both without a text. Whoever
// forwards errors tells callers what other services say to this one.
func Forward() connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			return forwarded(FromV1(next(ctx, spec, stream)))
		}
	}
}

// forwarded makes the word of another the handler's own.
func forwarded(err error) error {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok || coded == nil || !coded.IsRemote() {
		return err
	}
	out := connect.NewError(coded.Code(), coded.Message()).WithCause(err)
	for _, detail := range coded.Details() {
		out = out.WithDetail(detail)
	}
	return out //nolint:wrapcheck // made here
}
