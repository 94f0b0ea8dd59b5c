package edge_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// swellHost is a host in whose process handlers of the user's decompress what they get: as a
// host plugin, as a capability and as a provider. None of them sets a bound of its own.
type swellHost struct {
	*hosttest.Host

	provider string // its runtime id
}

func startSwellHost(t *testing.T, handler http.Handler, edit func(*connectplugin.ServeConfig)) *swellHost {
	t.Helper()
	var (
		handshake *connectplugin.HandshakeServer
		router    *connectplugin.ServiceRouter
	)
	all := []string{"*"}
	h := &swellHost{}
	h.Host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"caller":   hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires, p.Capabilities, p.HostPlugins = all, all, all }),
			"provider": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = all }),
		}}
		c.Logger = nil
		c.Plugins, c.Impls = connectplugin.PluginSet{"echo": echo.HostPlugin{Handler: handler}}, map[string]any{"echo": true}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(handler, echo.Type, "1.0.0"))
		if edit != nil {
			edit(c)
		}
		handshake = connectplugin.NewHandshakeServer(c)
		router = connectplugin.NewServiceRouter(handshake, nil, nil)
		c.ServiceRouter = router
	})
	resp, err := handshake.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("provider")))
	if err != nil {
		t.Fatal(err)
	}
	h.provider = resp.Msg.GetRuntimeId()
	if _, err := h.Registry().RegisterService(t.Context(), hosttest.InProcess(h.provider, echoRegistration())); err != nil {
		t.Fatal(err)
	}
	if err := router.RegisterPluginHandler(h.provider, handler); err != nil {
		t.Fatal(err)
	}
	return h
}

// Places returns the ways to reach the handler for a new caller.
func (h *swellHost) Places(t *testing.T) (caller *connectplugin.Client, places map[string]echo.Place) {
	t.Helper()
	caller = h.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	own := hosttest.IdentityHeader(caller.RuntimeID(), caller.RuntimeToken())
	grant := grantOf(t, h.Host, caller)
	return caller, map[string]echo.Place{
		"host plugin": {URL: h.URL, Header: own},
		"in process":  {URL: h.URL + "/services/echo/" + h.provider, Header: own},
		"capability":  {URL: grant.GetEndpointUrl(), Header: hosttest.BearerHeader(grant.GetBearerToken())},
	}
}

// swellWays are the ways to send one message, compressed.
var swellWays = []struct {
	protocol, contentType, header string
	procedures                    []string
}{
	{"Connect", "application/proto", "Content-Encoding", []string{echo.Unary}},
	{"Connect streaming", "application/connect+proto", "Connect-Content-Encoding", []string{echo.Client, echo.Server, echo.Bidi}},
	{"gRPC", "application/grpc+proto", "Grpc-Encoding", []string{echo.Unary, echo.Client, echo.Server, echo.Bidi}},
	{"gRPC-Web", "application/grpc-web+proto", "Grpc-Encoding", []string{echo.Unary, echo.Client, echo.Server, echo.Bidi}},
}

// post sends bytes as they are and returns the answer in words.
func post(t *testing.T, client connect.HTTPClient, address string, header http.Header, body []byte) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	return answerOf(client, req)
}

func answerOf(client connect.HTTPClient, req *http.Request) string {
	for _, name := range []string{"Accept-Encoding", "Connect-Accept-Encoding", "Grpc-Accept-Encoding"} {
		req.Header.Set(name, "identity")
	}
	resp, err := client.Do(req)
	if err != nil {
		return hosttest.Cut(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if z, err := gzip.NewReader(bytes.NewReader(answer[min(len(answer), 5):])); err == nil { // the end of a stream
		answer, _ = io.ReadAll(io.LimitReader(z, 1<<20))
	}
	status := resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status")
	return fmt.Sprintf("%d grpc-status: %s %.300s", resp.StatusCode, status, answer)
}

// says reports whether an answer has a code, in any protocol.
func says(answer string, code connect.Code) bool {
	return strings.Contains(answer, `"code":"`+code.String()+`"`) || strings.Contains(answer, fmt.Sprintf("grpc-status: %d", code))
}

func enveloped(contentType string, flags byte, message []byte) []byte {
	if contentType == "application/proto" {
		return message
	}
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...)
}

// A message that becomes too large in the host's process, for its size or at all, is refused in
// the caller's protocol before its handler has it; one that does not arrives.
func TestAudit_ATK04_BombsAreRefusedOnEveryPath(t *testing.T) {
	caller, places := startSwellHost(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) {
		c.Limits.MaxDecompressedBytes = 3 << 20
	}).Places(t)
	client := hosttest.HTTPClient(t, nil)
	client.Transport = roundTripper{caller.HTTPClient()}
	honest, err := proto.Marshal(wrapperspb.String(strings.Repeat("honest ", 20_000)))
	if err != nil {
		t.Fatal(err)
	}
	bombs := map[string][]byte{"ratio": hosttest.GzipOf(t, 2<<20), "bytes": append(gzipOf(t, noise(3<<20)), hosttest.GzipOf(t, 1<<20)...)}
	for name, place := range places {
		for _, way := range swellWays {
			header := maps.Clone(place.Header)
			header.Set("Content-Type", way.contentType)
			header.Set(way.header, "gzip")
			for _, procedure := range way.procedures {
				for bomb, body := range bombs {
					before := hosttest.Allocated()
					answer := post(t, client, place.URL+procedure, maps.Clone(header), enveloped(way.contentType, 1, body))
					if !says(answer, connect.CodeResourceExhausted) {
						t.Errorf("%s, %s, %s, %s: %s, want resource_exhausted", name, way.protocol, procedure, bomb, answer)
					}
					if used := hosttest.Allocated() - before; used > uint64(10*len(body)+8<<20) {
						t.Errorf("%s, %s, %s, %s: %d KiB allocated for %d", name, way.protocol, procedure, bomb, used>>10, len(body)>>10)
					}
				}
				answer := post(t, client, place.URL+procedure, maps.Clone(header), enveloped(way.contentType, 1, gzipOf(t, honest)))
				if !strings.Contains(answer, "200 ") || says(answer, connect.CodeResourceExhausted) || !says(answer+"grpc-status: 0", 0) {
					t.Errorf("%s, %s, %s: an honest message: %s", name, way.protocol, procedure, answer)
				}
			}
			header.Set(way.header, "br")
			answer := post(t, client, place.URL+way.procedures[0], header, enveloped(way.contentType, 1, []byte("x")))
			if !says(answer, connect.CodeUnimplemented) {
				t.Errorf("%s, %s: what the host cannot look into: %s, want unimplemented", name, way.protocol, answer)
			}
		}
		query := url.Values{"encoding": {"proto"}, "compression": {"gzip"}, "base64": {"1"}, "message": {base64.URLEncoding.EncodeToString(bombs["ratio"])}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, place.URL+echo.Look+"?"+query.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = maps.Clone(place.Header)
		if answer := answerOf(client, req); !says(answer, connect.CodeResourceExhausted) && !strings.HasPrefix(answer, "429") {
			t.Errorf("%s, GET: %s, want resource_exhausted", name, answer)
		}
	}
}

type roundTripper struct{ connect.HTTPClient }

// RoundTrip implements http.RoundTripper.
func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return r.Do(req) }

// The text of a refusal of a message to the host's own services names its code nowhere: it stands beside it.
func TestAudit_ATK04_ARefusedBombNamesItsCodeOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(*connectplugin.Limits) {}, nil)
	r.call(t)
	client := hosttest.HTTPClient(t, nil)
	client.Transport = roundTripper{r.caller.HTTPClient()}
	header := http.Header{"Content-Type": {"application/proto"}, "Content-Encoding": {"gzip"}}
	answer := post(t, client, r.URL+connectpluginv1connect.HealthServiceCheckProcedure, header, hosttest.GzipOf(t, 2<<20))
	if !says(answer, connect.CodeResourceExhausted) || strings.Count(answer, "resource_exhausted") != 1 {
		t.Errorf("the answer is %s", answer)
	}
}
