package h2

import (
	"errors"
	"fmt"

	"golang.org/x/net/http2"
)

// Errors of connections and streams.
var (
	// ErrClosed says that a connection takes no further streams: it was
	// closed, broke, or the server is going away.
	ErrClosed = errors.New("http2: connection is closed")
	// ErrFull says that the server takes no further streams at the moment.
	ErrFull = errors.New("http2: too many concurrent streams")
	// ErrUnprocessed says that the server certainly did not process the
	// request, so that it may be made once more.
	ErrUnprocessed = errors.New("http2: request was not processed")
	// ErrMalformed says that a response violates HTTP.
	ErrMalformed = errors.New("http2: malformed response")
	// ErrPing says that the server left a ping unanswered.
	ErrPing = errors.New("http2: no answer to a ping")

	errFlood        = errors.New("http2: server sends faster than it reads")
	errHeaderBytes  = fmt.Errorf("%w: too many header bytes", ErrMalformed)
	errLength       = fmt.Errorf("%w: body is not of the stated length", ErrMalformed)
	errNoHeaders    = fmt.Errorf("%w: data before headers", ErrMalformed)
	errStatus       = fmt.Errorf("%w: status", ErrMalformed)
	errTrailer      = fmt.Errorf("%w: trailer", ErrMalformed)
	errInterim      = fmt.Errorf("%w: too many interim responses", ErrMalformed)
	errStreamWindow = fmt.Errorf("%w: more data than allowed", ErrMalformed)
	errStreamsSpent = fmt.Errorf("%w: out of stream ids", ErrClosed)
)

// ResetError says that the server reset a stream.
type ResetError struct {
	Code http2.ErrCode
}

// Error implements error.
func (e *ResetError) Error() string {
	return "http2: stream reset by server: " + e.Code.String()
}

// Is reports that a refused stream was not processed.
func (e *ResetError) Is(target error) bool {
	return target == ErrUnprocessed && e.Code == http2.ErrCodeRefusedStream
}
