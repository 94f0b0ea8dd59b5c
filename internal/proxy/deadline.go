package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

const (
	fieldConnectTimeout = "Connect-Timeout-Ms"
	fieldGRPCTimeout    = "Grpc-Timeout"

	mostConnectDigits = 10 // of a timeout (Connect's protocol)
	mostGRPCDigits    = 8  // (PROTOCOL-HTTP2.md, "Timeout")

	// lateShare is the part of a timeout by which two clocks may differ.
	lateShare = 50
)

// errDeadline says that a provider cancelled a call because its time was over.
var errDeadline = errors.New("the deadline of the call has passed at the provider")

// lapsed says what it means that the provider broke a call off. Some, such as gRPC-Go,
// reset the stream of a call whose deadline has passed, with the code that says that
// somebody cancelled it. Their clock may be ahead of the caller's, which would know.
func (c *call) lapsed(err error) error {
	reset, ok := errors.AsType[*h2.ResetError](err)
	if !ok || reset.Code != http2.ErrCodeCancel {
		return err
	}
	if limit, ok := timeoutOf(c.r.Header); ok && time.Since(c.start) >= limit-limit/lateShare {
		return fmt.Errorf("%w: %w", errDeadline, err)
	}
	return err
}

// timeoutOf returns the timeout that a request states, as Connect or gRPC does.
func timeoutOf(header http.Header) (time.Duration, bool) {
	if stated := header[fieldConnectTimeout]; len(stated) > 0 {
		return timeout(stated[0], mostConnectDigits, time.Millisecond)
	}
	stated := header[fieldGRPCTimeout]
	if len(stated) == 0 || stated[0] == "" {
		return 0, false
	}
	last := len(stated[0]) - 1
	unit, ok := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[stated[0][last]]
	if !ok {
		return 0, false
	}
	return timeout(stated[0][:last], mostGRPCDigits, unit)
}

func timeout(digits string, most int, unit time.Duration) (time.Duration, bool) {
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || len(digits) > most || n > uint64(1<<63-1)/uint64(unit) { //nolint:gosec // units are positive
		return 0, false
	}
	return time.Duration(n) * unit, true
}
