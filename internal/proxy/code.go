package proxy

import (
	"errors"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// Codes of gRPC, which are those of Connect.
const (
	codeCanceled          = 1
	codeDeadlineExceeded  = 4
	codePermissionDenied  = 7
	codeResourceExhausted = 8
	codeInternal          = 13
	codeUnavailable       = 14
)

// TooLarge reports whether a call failed because its header list, or that of the
// response, is larger than the provider or the host takes.
func TooLarge(err error) bool {
	return errors.Is(err, h2.ErrTooLarge) || AnswerTooLarge(err)
}

// AnswerTooLarge reports whether a call failed because the header list of its response, or the trailer, is
// larger than is taken.
func AnswerTooLarge(err error) bool { return errors.Is(err, h2.ErrHeaderBytes) || TooManyFields(err) }

// TooManyFields reports whether it is because they are too many.
func TooManyFields(err error) bool { return errors.Is(err, h2.ErrFields) }

// CodeOf returns the number of the code of gRPC and Connect that says best what
// the error of a [Result] means for the caller, of the classes Unavailable, Reset
// and Response. Resets are mapped as gRPC does (PROTOCOL-HTTP2.md, "Errors").
func CodeOf(err error) uint32 {
	if errors.Is(err, errDeadline) {
		return codeDeadlineExceeded
	}
	if reset, ok := errors.AsType[*h2.ResetError](err); ok {
		return codeOfReset(reset.Code)
	}
	if TooLarge(err) || errors.Is(err, ErrBusy) || errors.Is(err, ErrHeld) {
		return codeResourceExhausted
	}
	return codeUnavailable
}

func codeOfReset(code http2.ErrCode) uint32 {
	switch code {
	case http2.ErrCodeCancel:
		return codeCanceled
	case http2.ErrCodeRefusedStream:
		return codeUnavailable
	case http2.ErrCodeEnhanceYourCalm:
		return codeResourceExhausted
	case http2.ErrCodeInadequateSecurity:
		return codePermissionDenied
	default:
		return codeInternal
	}
}

// isFault reports whether a failure is one of the provider or of the way to it.
func isFault(class Class, err error) bool {
	if class != ClassUnavailable && class != ClassReset {
		return false
	}
	if away, ok := errors.AsType[*h2.GoAwayError](err); ok && away.Code == http2.ErrCodeEnhanceYourCalm {
		return false // what the calls of one caller may bring about
	}
	return errors.Is(err, h2.ErrLost) || errors.Is(err, errUnavailable)
}
