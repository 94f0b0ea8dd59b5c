//go:build unix

package kv_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	kvv1 "github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
	"github.com/masegraye/connect-plugin-go/examples/kv/store"
)

// What is generated compresses long answers and no short ones, both as a plugin and as
// one of the host's own.
func TestGeneratedHandlersCompressWhatIsLong(t *testing.T) {
	t.Parallel()

	s := store.New()
	for key, size := range map[string]int{"short": connectplugin.CompressMinBytes / 2, "long": connectplugin.CompressMinBytes} {
		if _, err := s.Put(t.Context(), &kvv1.PutRequest{Key: key, Value: bytes.Repeat([]byte("x"), size)}); err != nil {
			t.Fatal(err)
		}
	}

	_, own, err := new(kvv1plugin.KVServicePlugin).ConnectServer(s)
	if err != nil {
		t.Fatal(err)
	}

	for name, handler := range map[string]http.Handler{"ConnectServer": own, "Provide": kvv1plugin.ProvideKVService(s).Handler} {
		for key, want := range map[string]string{"short": "", "long": "gzip"} {
			t.Run(name+"/"+key, func(t *testing.T) {
				t.Parallel()

				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/kv.v1.KVService/Get", bytes.NewReader([]byte(`{"key":"`+key+`"}`)))
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Accept-Encoding", "gzip")

				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)

				resp := w.Result()
				defer resp.Body.Close()

				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Error(err)
				}

				if got := resp.Header.Get("Content-Encoding"); resp.StatusCode != http.StatusOK || got != want {
					t.Errorf("%s, encoding %q, want %q", resp.Status, got, want)
				}
			})
		}
	}
}
