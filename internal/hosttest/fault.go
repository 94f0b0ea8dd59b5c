package hosttest

import (
	"errors"
	"net"
	"net/http"
	"sync/atomic"
)

var ErrDown = errors.New("down")

// CutClient loses the connection after the request went out.
type CutClient struct{ Sent atomic.Int64 }

func (c *CutClient) Do(*http.Request) (*http.Response, error) {
	c.Sent.Add(1)
	return nil, &net.OpError{Op: "read", Net: "tcp", Err: ErrDown}
}
