package connectpluginfx_test

import (
	"errors"
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect"
)

var errNotThere = errors.New("connection refused")

// refuseFirst is a host that is not there yet when it is called for the first times.
type refuseFirst struct {
	connect.HTTPClient

	calls *atomic.Int64
}

func (c refuseFirst) Do(r *http.Request) (*http.Response, error) {
	if c.calls.Add(1) < 3 {
		return nil, errNotThere
	}
	return c.HTTPClient.Do(r)
}

// hangLater is a host that answers nothing any more once stuck is set.
type hangLater struct {
	connect.HTTPClient

	stuck *atomic.Int64
}

func (c hangLater) Do(r *http.Request) (*http.Response, error) {
	if c.stuck.Load() == 0 {
		return c.HTTPClient.Do(r)
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}
