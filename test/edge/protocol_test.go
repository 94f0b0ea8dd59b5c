package edge_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Whoever asks too slowly, for what there is not, or states the same thing too often, is told so
// in its own protocol, by whatever is asked.
func TestAudit_H47_RefusalsAreInThePeersProtocol(t *testing.T) {
	t.Parallel()
	const slow = 300 * time.Millisecond
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Limits.BodyTimeout = hosttest.LoggerPolicy(), slow
	})
	c := host.Enrol(t, "api", hosttest.Requiring("logger"))
	ways := map[string]http.Header{
		"Connect":       {"Content-Type": {"application/proto"}, "Connect-Protocol-Version": {"1"}},
		"Connect, JSON": {"Content-Type": {"application/json"}},
		"gRPC":          {"Content-Type": {"application/grpc+proto"}},
		"gRPC-Web":      {"Content-Type": {"application/grpc-web+proto"}},
	}
	header := func(way http.Header) http.Header {
		h := hosttest.IdentityHeader(c.RuntimeID(), c.RuntimeToken())
		maps.Copy(h, way)
		return h
	}
	trickle := func(t *testing.T, way http.Header, path string) string {
		t.Helper()
		s := stick(t, host.Stranger(t), host.URL+path, header(way), []byte{0, 0, 0, 0, 9})
		end := time.After(hosttest.Wait)
		for {
			select {
			case answer := <-s.answer:
				return answer
			case <-time.After(slow / 10):
				_, _ = s.body.Write([]byte{1})
			case <-end:
				return "no answer"
			}
		}
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{
				connectpluginv1connect.ServiceRegistryDiscoverServiceProcedure, connectpluginv1connect.PluginLifecycleReportHealthProcedure,
				connectpluginv1connect.CapabilityBrokerRequestCapabilityProcedure,
			} {
				answer := trickle(t, way, path)
				// What is no whole envelope, or more than one, may be told first.
				if !says(answer, connect.CodeDeadlineExceeded) && !says(answer, connect.CodeInvalidArgument) && !says(answer, connect.CodeUnimplemented) {
					t.Errorf("%s trickles: %s", path, answer)
				}
			}
			for _, path := range []string{
				"/nothing.v1.Here/Is", "/connectplugin.v1.ServiceRegistry/Nothing", "/services/nothing/-/x.v1.X/Y", "/capabilities/nothing/x/",
			} {
				answer := post(t, host.Stranger(t), host.URL+path, header(way), nil)
				if !says(answer, connect.CodeNotFound) && !says(answer, connect.CodeUnimplemented) && !says(answer, connect.CodeUnavailable) &&
					!says(answer, connect.CodeUnauthenticated) && !strings.HasPrefix(answer, "404") {
					t.Errorf("%s: %s", path, answer)
				}
			}
		})
	}
}
