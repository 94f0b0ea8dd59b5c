package connectplugin_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// A message that swells to a thousand times its size costs no more time than one
// that does not: what is beyond the limit is not decompressed. It does not run in
// parallel: it measures.
func TestAudit_H47_BombsCostNoTime(t *testing.T) {
	bomb := bytes.Repeat(gzipOf(t, 64<<20), 15) // gzip goes on after each: 960 MiB in less than one
	const limit = 1 << 20
	if len(bomb) > limit {
		t.Fatalf("the bomb has %d bytes and is refused for that", len(bomb))
	}
	start := time.Now()
	plain, err := gzip.NewReader(bytes.NewReader(bomb))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, plain); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(start)
	server := connectplugin.NewHandshakeServer(&connectplugin.ServeConfig{Policy: unproven("plugin")})
	mux := http.NewServeMux()
	mux.Handle(connectplugin.HandshakeServerHandler(server))
	secure := httptest.NewUnstartedServer(mux)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	start = time.Now()
	for _, p := range hostProcedures() {
		if !p.isHandshake() {
			continue
		}
		for _, w := range wiresOf(p) {
			if answer := w.send(t.Context(), t, secure.Client(), secure.URL+p.path, http.Header{}, bomb, true); !exhausted(answer) {
				t.Errorf("%s over %s: %.200q, want resource_exhausted", p.path, w.protocol, answer)
			}
		}
	}
	if took := time.Since(start); took > whole {
		t.Errorf("three bombs took %s; to decompress one takes %s", took, whole)
	}
	client := connectpluginv1connect.NewHandshakeServiceClient(secure.Client(), secure.URL, connect.WithSendGzip())
	for range 3 { // decompressors are used again
		if _, err := client.Handshake(t.Context(), connect.NewRequest(oldRequest("plugin"))); err != nil {
			t.Errorf("an honest message, compressed: %v", err)
		}
	}
}
