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
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A message that swells to a thousand times its size costs no more time than one
// that does not, at a host and at handlers on a server of one's own: what is beyond
// the limit is not decompressed. It does not run in parallel: it measures.
func TestAudit_H47_BombsCostNoTime(t *testing.T) {
	bomb := gzipOf(t, 512<<20)
	const limit = 1 << 20
	if len(bomb) > limit {
		t.Fatalf("the bomb has %d bytes and is refused for that", len(bomb))
	}
	health := connectplugin.NewHealthServer()
	host, header := boundsHost(t, health)
	own := mounted(t, host, health)
	start := time.Now()
	plain, err := gzip.NewReader(bytes.NewReader(bomb))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, plain); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(start)
	for name, server := range map[string]struct {
		client *http.Client
		url    string
	}{"host": {host.Stranger(t), host.URL}, "own server": {own.Client(), own.URL}} {
		bombs := 0
		start := time.Now()
		for _, p := range hostProcedures() {
			for _, w := range wiresOf(p) {
				bombs++
				if answer := w.send(t.Context(), t, server.client, server.url+p.path, p.header(header), bomb, true); !exhausted(answer) {
					t.Errorf("%s: %s over %s: %.200q, want resource_exhausted", name, p.path, w.protocol, answer)
				}
			}
		}
		if each := time.Since(start) / time.Duration(bombs); each > whole/4 {
			t.Errorf("%s: each bomb took %s; to decompress it takes %s", name, each, whole)
		}
	}
	for range 3 { // decompressors are used again
		client := connectpluginv1connect.NewHandshakeServiceClient(own.Client(), own.URL, connect.WithSendGzip())
		if _, err := client.Handshake(t.Context(), connect.NewRequest(oldRequest("plugin"))); err != nil {
			t.Errorf("an honest message, compressed: %v", err)
		}
	}
}

// mounted is a server of one's own with a host's services.
func mounted(t *testing.T, host *hosttest.Host, health *connectplugin.HealthServer) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(connectplugin.HandshakeServerHandler(connectplugin.NewHandshakeServer(&connectplugin.ServeConfig{Policy: unproven("plugin")})))
	mux.Handle(connectplugin.LifecycleServerHandler(host.Lifecycle()))
	mux.Handle(connectplugin.ServiceRegistryHandler(host.Registry()))
	mux.Handle(connectplugin.HealthServerHandler(health))
	mux.Handle("/", host.Broker().Handler())
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}
