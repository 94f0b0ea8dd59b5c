package link

import (
	"errors"
	"fmt"
	"io"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

const (
	smallRead = 4 << 10  // for bodies that come in small pieces, held while waiting
	largeRead = 32 << 10 // for those that fill the small one
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
		u := &upload{body: x.r.Body, stream: b.stream, left: x.length}
		b.upload = u.body

		go u.run()
	}
}

// openError says what it means that a connection opened no stream.
func openError(err error) error {
	if errors.Is(err, h2.ErrTooLarge) {
		return err //nolint:wrapcheck // says what it is
	}

	return fmt.Errorf("%w: %w", errNotSent, err)
}

// upload is a body on its way.
type upload struct {
	body   io.ReadCloser
	stream *h2.Stream
	left   int64 // of the stated length; negative if none is stated
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
	buf := h2.GetBuffer(smallRead)
	defer func() { buf.Release() }()

	stated := u.left >= 0

	for {
		p := buf.B[:cap(buf.B)]
		n, err := u.body.Read(p)
		end := errors.Is(err, io.EOF)

		switch {
		case err != nil && !end:
			return fmt.Errorf("read request: %w", err)
		case stated && int64(n) > u.left:
			return errLong
		case stated && end && int64(n) < u.left:
			return errShort
		}

		u.left -= int64(n)

		if n > 0 || end {
			if u.stream.Write(p[:n], end) != nil || end {
				return nil
			}
		}

		if n == len(p) && n < largeRead {
			buf.Release()
			buf = h2.GetBuffer(largeRead)
		}
	}
}
