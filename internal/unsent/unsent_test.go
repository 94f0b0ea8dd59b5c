package unsent_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/unsent"
)

// What is written is what arrives: the header as it was with the status, the body, and the
// trailers that were announced, with what they were set to later.
func TestResponse(t *testing.T) {
	t.Parallel()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://host.invalid/x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	a := &unsent.Answer{}
	a.Header().Set("Content-Type", "text/plain")
	a.Header().Set("Trailer", "grpc-status, grpc-message")
	a.WriteHeader(http.StatusTeapot)
	a.WriteHeader(http.StatusOK)
	a.Header().Set("Grpc-Status", "5")
	a.Header().Set("Late", "no trailer")
	_, _ = io.WriteString(a, "body")
	resp := a.Response(r)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "body" || resp.StatusCode != http.StatusTeapot || resp.ContentLength != 4 || resp.ProtoMajor != 2 || resp.Request != r {
		t.Errorf("%s %q of %d bytes, %v", resp.Status, body, resp.ContentLength, err)
	}
	if h := resp.Header; h.Get("Content-Type") != "text/plain" || len(h) != 1 {
		t.Errorf("header %v", h)
	}
	if tr := resp.Trailer; tr.Get("Grpc-Status") != "5" || len(tr) != 1 {
		t.Errorf("trailer %v", tr)
	}
}

// Who writes nothing answers 200, and who writes no status too.
func TestResponseWithoutStatus(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "x"} {
		a := &unsent.Answer{}
		if body != "" {
			_, _ = io.WriteString(a, body)
		}
		resp := a.Response(nil)
		got, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || string(got) != body {
			t.Errorf("%s %q", resp.Status, got)
		}
	}
}
