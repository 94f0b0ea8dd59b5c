package edge

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ErrNoDeadlines says that a connection has no deadlines, by which limits of time end it.
var ErrNoDeadlines = errors.New("the listener's connections have no deadlines")

// lacksDeadlines returns an [ErrNoDeadlines] with what a connection says of its deadlines, nil where it has them. It
// takes back those that were set before. A connection that has ended lacks nothing: whoever reads it learns of that.
func lacksDeadlines(c net.Conn) error {
	if directly(c) != nil {
		return nil
	}
	for _, set := range []func(time.Time) error{c.SetDeadline, c.SetReadDeadline, c.SetWriteDeadline} {
		switch err := set(time.Time{}); {
		case err == nil:
		case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe), errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("%w: %w", ErrNoDeadlines, err)
		}
	}
	return nil
}
