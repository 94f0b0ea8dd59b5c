package link

import (
	"bytes"
	"io"
	"mime"
	"net/http"
)

// maxRefusal is more than an error in JSON has, in bytes. What is longer is read as it comes.
const maxRefusal = 64 << 10

// Refusal reads the body of an answer that says in JSON why a request is refused, so that
// one which breaks in the middle is a failure of the request: clients of Connect make of it
// what its status alone would mean, and of a 404 that nobody serves the procedure. Of any
// other answer it reads nothing. On an error the body is closed.
func Refusal(resp *http.Response) error {
	if resp.StatusCode < http.StatusBadRequest || resp.Body == nil {
		return nil
	}

	kind, _, err := mime.ParseMediaType(resp.Header.Get(contentType))
	if err != nil || kind != "application/json" {
		return nil //nolint:nilerr // it is none in JSON
	}

	said, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		_ = resp.Body.Close()

		return err //nolint:wrapcheck // the body's own error
	}

	resp.Body = ahead{io.MultiReader(bytes.NewReader(said), resp.Body), resp.Body}

	return nil
}

// ahead is a body of which some was read.
type ahead struct {
	io.Reader
	io.Closer
}
