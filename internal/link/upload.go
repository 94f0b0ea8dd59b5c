package link

import (
	"errors"
	"fmt"
	"io"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

var (
	errShort = errors.New("link: the request's body is shorter than it says")
	errLong  = errors.New("link: the request's body is longer than it says")
)

// upload sends what is left of the request while the response arrives. Its goroutine
// ends with the body of the request, which is closed when the response is over.
func (x *exchange) upload(b *body, rest []byte) {
	switch {
	case x.whole != nil && len(rest) == 0, x.length == 0:
		return
	case x.whole != nil:
		whole := x.whole
		x.whole = nil // the goroutine's

		go func() {
			_ = b.stream.Write(rest, true) // its failure is the stream's, which the response shows
			whole.Release()
		}()
	default:
		x.passed = true
		u := &upload{body: x.r.Body, stream: b.stream, left: x.length, enveloped: isEnveloped(x.r)}
		b.upload = u.body

		go u.run()
	}
}

// openError says what it means that a connection opened no stream.
func openError(err error) error {
	if errors.Is(err, h2.ErrTooLarge) {
		return err
	}

	return fmt.Errorf("%w: %w", errNotSent, err)
}

// upload is a body on its way.
type upload struct {
	body   io.ReadCloser
	stream *h2.Stream
	left   int64 // of the stated length; negative if none is stated

	enveloped bool // it consists of messages
}

// Read reads of the body, and sees to it that it has the stated length.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.body.Read(p)
	if u.left < 0 {
		return n, err //nolint:wrapcheck // the body's own error
	}

	switch u.left -= int64(n); {
	case u.left < 0:
		return 0, errLong
	case u.left > 0 && errors.Is(err, io.EOF):
		return 0, errShort
	default:
		return n, err //nolint:wrapcheck // the body's own error
	}
}

func (u *upload) run() {
	if err := u.copy(); err != nil {
		u.stream.Cancel(err)
	}

	_ = u.body.Close()
}

// copy copies the body to the stream. An error is one of reading it; those of the stream
// show in the response.
func (u *upload) copy() error {
	var in h2.Intake

	read, await := u.Read, func() {}
	if u.enveloped {
		m := &messages{body: u}
		read, await = m.Read, m.await
	}

	for {
		await()

		last, err := in.Pass(u.stream, read)
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}

		if last {
			return nil
		}
	}
}
