package proxy

import (
	"errors"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// Errors that a [Result] may wrap, beside those of the context and the network.
var (
	// ErrMethod says that a request is none that an RPC makes: a method other
	// than POST, or a GET with a body.
	ErrMethod = errors.New("method is not forwarded")
	// ErrClosed says that the provider is being drained or was closed.
	ErrClosed = errors.New("provider is closed")
	// ErrIdle says that nothing moved on a call for too long.
	ErrIdle = errors.New("call was idle for too long")
	// ErrResponse says that the provider gave an answer that is not forwarded,
	// such as a redirect.
	ErrResponse = errors.New("response is not forwarded")
	// ErrBusy says that the provider had no room for the call in time.
	ErrBusy = errors.New("provider has no room for the call")
	// ErrHeld says that the Holder of a call has no room for the head of its answer.
	ErrHeld = h2.ErrHeld
)

// Class says how a forwarded call ended.
type Class uint8

// The classes.
const (
	// ClassOK: the provider's response reached the caller complete, whatever
	// it says.
	ClassOK Class = iota
	// ClassRefused: the request is not one to forward; nothing was sent.
	ClassRefused
	// ClassUnavailable: the provider could not be reached, is closed, has no
	// room, takes no header list as large as the request's, or refused the call
	// before it looked at it.
	ClassUnavailable
	// ClassReset: the provider or the connection to it broke the call off.
	ClassReset
	// ClassResponse: the provider's answer is malformed or not forwarded.
	ClassResponse
	// ClassCanceled: the caller went away or the context ended;
	// [Result.Err] is the cause.
	ClassCanceled
	// ClassIdle: nothing moved for too long.
	ClassIdle
)

// String returns the name of the class, for logs.
func (c Class) String() string {
	switch c {
	case ClassOK:
		return "ok"
	case ClassRefused:
		return "refused"
	case ClassUnavailable:
		return "unavailable"
	case ClassReset:
		return "reset"
	case ClassResponse:
		return "response"
	case ClassCanceled:
		return "canceled"
	case ClassIdle:
		return "idle"
	default:
		return "unknown"
	}
}

// Result says what became of a forwarded call.
type Result struct {
	// Class says how the call ended.
	Class Class
	// Err is what broke the call, nil for ClassOK. It names addresses and is
	// for the host's log, not for the caller.
	Err error
	// Status is the provider's HTTP status, 0 if there was no response.
	Status int
	// Written reports whether anything was written to the caller. If it is
	// false, the caller is still owed an answer. If it is true there is
	// nothing left to write: the response is complete, or was ended or aborted.
	Written bool
	// Retryable reports that the provider certainly did not begin to process
	// the call, that nothing was written to the caller, and that the request
	// can be forwarded once more, to this provider or another.
	Retryable bool
	// Sent reports whether the provider may have processed some of the call. It
	// is false where nothing was written to it, and where it said that it looked
	// at nothing of what was.
	Sent bool
	// Fault reports that the provider failed, or the way to it, and not this
	// call alone: it could not be reached, or its connection broke. What a caller
	// can cause is no fault: a reset, a malformed or too large response, a full
	// provider.
	Fault bool
	// Latency is the time until the provider's response headers were there,
	// or until the call failed without any. It does not count while the caller had
	// something to send.
	Latency time.Duration
}
