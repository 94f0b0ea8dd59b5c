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
	// ErrLost says that the connection broke under a stream.
	ErrLost = errors.New("http2: connection lost")
	// ErrTooLarge says that the server takes no header list as large as the
	// request's. Nothing was sent.
	ErrTooLarge = errors.New("http2: request header list is larger than the server takes")
	// ErrHeaderBytes says that the header list of a response, or its trailer,
	// is over the bound. It is an [ErrMalformed].
	ErrHeaderBytes = fmt.Errorf("%w: too many header bytes", ErrMalformed)
	// ErrFields says that a response has more header fields than [MostFields]. It is an [ErrMalformed].
	ErrFields = fmt.Errorf("%w: more than %d header fields", ErrMalformed, MostFields)
	// ErrHeld says that the [Holder] of a request has no room for the head of its response.
	ErrHeld = errors.New("http2: no room for the head of the response")
	// ErrMalformed says that a response violates HTTP.
	ErrMalformed = errors.New("http2: malformed response")
	// ErrPing says that the server left a ping unanswered.
	ErrPing = errors.New("http2: no answer to a ping")

	// errOverflow is a flood of bytes that no window let through.
	errOverflow     = fmt.Errorf("%w: %w", errFlood, http2.ConnectionError(http2.ErrCodeFlowControl))
	errFlood        = errors.New("http2: server sends what nothing explains, or faster than it reads")
	errLeft         = errors.New("http2: server says that it cannot go on, and was left")
	errStuck        = errors.New("http2: server does not read")
	errPseudo       = fmt.Errorf("%w: pseudo-header field", ErrMalformed)
	errField        = fmt.Errorf("%w: header field", ErrMalformed)
	errStated       = fmt.Errorf("%w: content-length", ErrMalformed)
	errLength       = fmt.Errorf("%w: body is not of the stated length", ErrMalformed)
	errNoHeaders    = fmt.Errorf("%w: data before headers", ErrMalformed)
	errStatus       = fmt.Errorf("%w: status", ErrMalformed)
	errTrailer      = fmt.Errorf("%w: trailer", ErrMalformed)
	errInterim      = fmt.Errorf("%w: too many interim responses", ErrMalformed)
	errStreamWindow = fmt.Errorf("%w: more data than allowed", ErrMalformed)
	errWindow       = fmt.Errorf("%w: window is too large", ErrMalformed)
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

// maxGoAwayText bounds what is kept of the text of a GOAWAY frame, in bytes.
const maxGoAwayText = 200

// GoAwayError says why the server is going away, in its own words.
type GoAwayError struct {
	Code http2.ErrCode
	Text string // cut to a bound; the server's, so that it has to be escaped
}

// Error implements error. It quotes the text.
func (e *GoAwayError) Error() string {
	return fmt.Sprintf("http2: server is going away: %v %q", e.Code, e.Text)
}
