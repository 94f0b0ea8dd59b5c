package host_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A message that swells to a thousand times its size costs no more time than one
// that does not, at a host and at handlers on a server of one's own: what is beyond
// the limit is not decompressed. It does not run in parallel: it measures.
func TestAudit_H47_BombsCostNoTime(t *testing.T) {
	bomb := hosttest.GzipOf(t, 256<<20)
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
		for _, p := range hosttest.Procedures() {
			for _, w := range encodingsOf(p) {
				bombs++
				if answer := w.send(t.Context(), t, server.client, server.url+p.Path, p.Header(header), bomb, true); !exhausted(answer) {
					t.Errorf("%s: %s over %s: %.200q, want resource_exhausted", name, p.Path, w.protocol, answer)
				}
			}
		}
		if each := time.Since(start) / time.Duration(bombs); each > whole/4 {
			t.Errorf("%s: each bomb took %s; to decompress it takes %s", name, each, whole)
		}
	}
	for range 3 { // decompressors are used again
		client := connectpluginv1connect.NewHandshakeServiceClient(own.Client(), own.URL, connect.WithSendGzip())
		if _, err := client.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("plugin"))); err != nil {
			t.Errorf("an honest message, compressed: %v", err)
		}
	}
}

// mounted is a server of one's own with a host's services.
func mounted(t *testing.T, host *hosttest.Host, health *connectplugin.HealthServer) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(connectplugin.HandshakeServerHandler(connectplugin.NewHandshakeServer(&connectplugin.ServeConfig{Policy: hosttest.Unproven("plugin")})))
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

// The host compresses what is large, where the client takes that, and leaves small
// messages, as the events of a watch are, alone.
func TestHost_CompressesLargeMessagesOnly(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"p": {{"small", "large"}, nil}, "c": {nil, {"small", "large"}}})))
	p, c := host.Enrol(t, "p", hosttest.Providing("small", "large")), host.Enrol(t, "c", hosttest.Requiring("small", "large"))
	for name, size := range map[string]int{"small": 200, "large": 2000} {
		err := hosttest.RegisterWith(t, p, &connectpluginv1.RegisterServiceRequest{
			ServiceType: name, Version: "1.0.0", Metadata: map[string]string{"k": strings.Repeat("x", size)},
		})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := proto.Marshal(&connectpluginv1.DiscoverServiceRequest{ServiceType: name})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			host.URL+connectpluginv1connect.ServiceRegistryDiscoverServiceProcedure, bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/proto")
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := c.HTTPClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Content-Encoding") == "gzip"; resp.StatusCode != http.StatusOK || got != (name == "large") {
			t.Errorf("%s: status %d, compressed: %t", name, resp.StatusCode, got)
		}
	}
}
