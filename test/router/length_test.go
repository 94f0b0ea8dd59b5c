package router_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A gRPC call that ends without a body has its status in the trailer alone. Proxies in
// front of the host drop a trailer behind "content-length: 0".
func TestAudit_USE14_NoLengthBeforeATrailer(t *testing.T) {
	t.Parallel()
	trailer := func(w http.ResponseWriter) {
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "nothing")
	}
	provider := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		switch r.Header.Get("X-How") {
		case "flushed":
			_ = http.NewResponseController(w).Flush()
		case "stated":
			w.Header().Set("Content-Length", "0")
		case "body":
			_, _ = w.Write([]byte{0, 0, 0, 0, 0})
		}
		trailer(w)
	}
	api, overTLS := startRaw(t, provider)
	ways := map[string]struct {
		client *connectplugin.Client
		target string
	}{"over TLS": {api, overTLS}}
	inProcess, target := startRawInProcess(t, provider)
	ways["in the host's process"] = struct {
		client *connectplugin.Client
		target string
	}{inProcess, target}
	for way, to := range ways {
		for _, contentType := range []string{"application/grpc", "application/grpc+proto", "application/grpc-web+proto", "application/connect+proto"} {
			for _, how := range []string{"", "flushed", "stated", "body"} {
				t.Run(way+" "+contentType+" "+how, func(t *testing.T) {
					t.Parallel()
					resp := rawCall(t, to.client, to.target, contentType, how)
					if how != "body" && (resp.ContentLength != -1 || resp.Header.Get("Content-Length") != "") {
						t.Errorf("content-length %d, %q before the trailer", resp.ContentLength, resp.Header.Get("Content-Length"))
					}
					if got := resp.Trailer.Get("Grpc-Status"); got != "5" {
						t.Errorf("the trailer has status %q", got)
					}
				})
			}
		}
	}
}

// rawCall makes a call, reads it to its end and returns the response.
func rawCall(t *testing.T, c *connectplugin.Client, target, contentType, how string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader("\x00\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Te", "trailers")
	req.Header.Set("X-How", how)
	resp, err := c.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp
}

// startRawInProcess is startRaw with the provider in the host's own process.
func startRawInProcess(t *testing.T, handler http.HandlerFunc) (*connectplugin.Client, string) {
	t.Helper()
	router := connectplugin.NewServiceRouter(nil, nil, nil)
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.ServiceRouter = hosttest.LoggerPolicy(), router
	})
	provider := host.Enrol(t, "logger", func(c *connectplugin.ClientConfig) { c.Metadata.Provides = hosttest.Provides("logger") })
	if err := hosttest.RegisterWith(t, provider, &connectpluginv1.RegisterServiceRequest{
		ServiceType: "logger", Version: "1.0.0", EndpointPath: "/raw.v1.Raw/",
	}); err != nil {
		t.Fatal(err)
	}
	if err := router.RegisterPluginHandler(provider.RuntimeID(), handler); err != nil {
		t.Fatal(err)
	}
	return host.Enrol(t, "api", hosttest.Requiring("logger")), host.URL + "/services/logger/" + provider.RuntimeID() + "/raw.v1.Raw/Call"
}

// A caller's retryPolicy of gRPC goes by the code only where that comes in one block, without a trailer: gRPC-Go and
// grpc-js take the call for settled once there are headers. What the host refuses in gRPC comes so.
func TestRouter_ARefusalInGRPCIsOneBlock(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	api := host.Enrol(t, "api", hosttest.Requiring("logger"))
	for _, tt := range [][2]string{
		{"/services/logger/logger-1234/raw.v1.Raw/Call", "14"}, // nobody provides it
		{"/services/other/other-1234/raw.v1.Raw/Call", "5"},
		{"/raw.v1.Raw/Call", "5"},
	} {
		target, want := tt[0], tt[1]
		for _, contentType := range []string{"application/grpc", "application/grpc+proto", "application/grpc+json"} {
			resp := rawCall(t, api, host.URL+target, contentType, "")
			if got := resp.Header.Get("Grpc-Status"); got != want || resp.Header.Get("Grpc-Message") == "" || resp.StatusCode != http.StatusOK ||
				len(resp.Trailer) != 0 || resp.Header.Get("Trailer") != "" {
				t.Errorf("%s in %s: status %d, header %v, trailer %v", target, contentType, resp.StatusCode, resp.Header, resp.Trailer)
			}
		}
	}
	// This one is of Connect, whatever it says of a body that it has not.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, host.URL+"/raw.v1.Raw/Call?connect=v1&encoding=json&message=%7B%7D", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	resp, err := api.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("GET: status %d", resp.StatusCode)
	}
}
