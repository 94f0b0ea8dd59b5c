package proxy

import (
	"net/http"
	"testing"
)

func TestOutOfEnvelope(t *testing.T) {
	t.Parallel()
	whole := intoEnvelope([]byte("m"))
	for name, c := range map[string]struct {
		status string
		body   []byte
		want   int
	}{
		"an answer":               {"0", whole, http.StatusOK},
		"an empty message":        {"0", intoEnvelope(nil), http.StatusOK},
		"without trailers":        {"", whole, http.StatusOK},
		"nothing at all":          {"", nil, http.StatusBadGateway},
		"no message":              {"0", nil, http.StatusBadGateway},
		"cut off":                 {"0", whole[:len(whole)-1], http.StatusBadGateway},
		"two messages":            {"0", append(append([]byte{}, whole...), whole...), http.StatusBadGateway},
		"compressed":              {"0", append([]byte{1}, whole[1:]...), http.StatusBadGateway},
		"unimplemented":           {"12", nil, http.StatusNotImplemented},
		"not found, with a body":  {"5", whole, http.StatusNotFound},
		"unknown":                 {"2", nil, http.StatusInternalServerError},
		"a code that there isn't": {"99", nil, http.StatusInternalServerError},
		"no code":                 {"x", nil, http.StatusBadGateway},
	} {
		got, message := outOfEnvelope(c.status, c.body)
		if got != c.want {
			t.Errorf("%s: status %d, want %d", name, got, c.want)
		}
		if (got == http.StatusOK) != (message != nil) {
			t.Errorf("%s: message %q", name, message)
		}
	}
}
