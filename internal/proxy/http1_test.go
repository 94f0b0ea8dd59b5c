package proxy_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// TestHTTP1Caller has a caller that speaks HTTP/1.1, as one may in plaintext.
func TestHTTP1Caller(t *testing.T) {
	t.Parallel()
	checkLeaks(t)
	target := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		echo(w, r)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		if strings.HasSuffix(r.URL.Path, "/Break") {
			panic(http.ErrAbortHandler)
		}
	})
	p := newProvider(t, proxy.Config{Endpoint: endpointOf(t, target.URL), TLS: &tls.Config{RootCAs: poolOf(target)}})
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.Forward(w, r, proxy.Call{Path: r.URL.Path})
	}))
	t.Cleanup(host.Close)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	want := bytes.Repeat([]byte("x"), 1<<20)
	for _, contentType := range []string{unaryType, grpcType} {
		res, err := client.Post(host.URL+"/Call", contentType, io.MultiReader(bytes.NewReader(want)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, want) || res.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%s: %d bytes, %v, trailer %v", contentType, len(got), err, res.Trailer)
		}
		res, err = client.Post(host.URL+"/Break", contentType, strings.NewReader("x"))
		if err != nil {
			continue // the connection broke before the head
		}
		if got, err := io.ReadAll(res.Body); err == nil && res.StatusCode == http.StatusOK && len(got) > 0 {
			t.Errorf("%s: clean end after %q", contentType, got)
		}
		res.Body.Close()
	}
}
