package proxy

import (
	"fmt"
	"sync/atomic"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// upload is the sending of a request's body while the response arrives. A nil
// one is done.
type upload struct {
	c       *call
	stopped atomic.Bool // the response is over, so what is left of the body does not matter
	done    chan struct{}
}

// startUpload sends what is left of the body in a goroutine, if anything is.
func (c *call) startUpload(s *h2.Stream, request h2.Request, rest []byte) *upload {
	if request.End && len(rest) == 0 {
		return nil
	}
	u := &upload{c: c, done: make(chan struct{})}
	go func() {
		defer close(u.done)
		if request.End {
			_ = s.Write(rest, true) // its failure is the stream's, which the response shows
			return
		}
		if err := c.send(s); err != nil && !u.stopped.Load() {
			c.interrupt(err)
		}
	}()
	return u
}

// wait stops the sending and waits for its end.
func (u *upload) wait() {
	if u == nil {
		return
	}
	select {
	case <-u.done:
		return
	default:
	}
	u.stopped.Store(true)
	u.c.stopReading()
	<-u.done
}

// send copies the request's body to the stream. An error is one of reading it;
// those of the stream show in the response.
func (c *call) send(s *h2.Stream) error {
	var in h2.Intake
	for {
		last, err := in.Pass(s, c.readBody)
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		if last {
			return nil
		}
	}
}

func (c *call) readBody(p []byte) (int, error) {
	n, err := c.read(p)
	c.active.Store(true)
	return n, err
}
