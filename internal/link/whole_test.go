package link_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/masegraye/connect-plugin-go/internal/link"
)

var errCut = errors.New("cut")

// A refusal in JSON is read before anybody else sees it; nothing else is.
func TestRefusal_IsWholeOrFails(t *testing.T) {
	t.Parallel()

	const said = `{"code":"not_found"}`

	long := strings.Repeat("x", 1<<20)

	for name, tt := range map[string]struct {
		status int
		kind   string
		body   io.Reader
		want   string
		err    error // of reading the body later
		cut    bool  // it is no answer
	}{
		"whole":       {404, "application/json", strings.NewReader(said), said, nil, false},
		"in a set":    {404, "application/json; charset=utf-8", iotest.ErrReader(errCut), "", nil, true},
		"cut":         {503, "application/json", io.MultiReader(strings.NewReader(said[:9]), iotest.ErrReader(errCut)), "", nil, true},
		"long":        {404, "application/json", strings.NewReader(long), long, nil, false},
		"an answer":   {200, "application/json", iotest.ErrReader(errCut), "", errCut, false},
		"no JSON":     {404, "text/plain", iotest.ErrReader(errCut), "", errCut, false},
		"of no kind":  {404, "", iotest.ErrReader(errCut), "", errCut, false},
		"without any": {404, "application/json", http.NoBody, "", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			body := &watchedBody{Reader: tt.body}
			resp := &http.Response{StatusCode: tt.status, Header: http.Header{"Content-Type": {tt.kind}}, Body: body}

			err := link.Refusal(resp)
			if tt.cut != errors.Is(err, errCut) || tt.cut != body.closed {
				t.Fatalf("%v, closed: %t", err, body.closed)
			}

			if tt.cut {
				return
			}

			got, err := io.ReadAll(resp.Body)
			if string(got) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%d bytes, %v", len(got), err)
			}

			if _ = resp.Body.Close(); !body.closed {
				t.Error("the body stays open")
			}
		})
	}
}

// watchedBody is a body that knows whether it was closed.
type watchedBody struct {
	io.Reader

	closed bool
}

func (b *watchedBody) Close() error {
	b.closed = true

	return nil
}
