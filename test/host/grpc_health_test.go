package host_test

import (
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

const grpcHealth = "/grpc.health.v1.Health/"

// The host's own address serves gRPC's health service to the same callers and with the same
// answers as its own: plugins, and strangers where policy says so.
func TestGRPCHealthFollowsPolicy(t *testing.T) {
	t.Parallel()

	health := connectplugin.NewHealthServer()
	health.SetServingStatus(echo.Type, connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
	health.SetServingStatus("secret", connectpluginv1.ServingStatus_SERVING_STATUS_SERVING)
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Policy, c.HealthService = echo.Policy(), health })
	plugin := host.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	stranger := host.Stranger(t)

	type asked struct {
		status connectpluginv1.ServingStatus
		code   connect.Code
	}
	ask := func(client connect.HTTPClient, service string, opts ...connect.ClientOption) asked {
		resp, err := connect.NewClient[healthQuestion, healthAnswer](client, host.URL+grpcHealth+"Check", opts...).
			CallUnary(t.Context(), connect.NewRequest(&healthQuestion{Service: service}))
		if err != nil {
			return asked{code: connect.CodeOf(err)}
		}
		return asked{status: resp.Msg.GetStatus()}
	}

	for name, opts := range hosttest.Protocols {
		for service, want := range map[string]asked{
			"":        {status: connectpluginv1.ServingStatus_SERVING_STATUS_SERVING},
			echo.Type: {status: connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING},
			"secret":  {code: connect.CodeNotFound},
		} {
			if got := ask(plugin.HTTPClient(), service, opts...); got != want {
				t.Errorf("%s, a plugin about %q: %+v, want %+v", name, service, got, want)
			}
		}

		if got := ask(stranger, "", opts...); got.code != connect.CodeUnauthenticated {
			t.Errorf("%s, a stranger: %+v", name, got)
		}
	}

	if got := ask(plugin.HTTPClient(), "", connect.WithProtoJSON()); got.status != 0 {
		t.Errorf("in JSON, where the names differ: %+v", got)
	}

	p := echo.Policy()
	p.Public = []string{"health"}
	hosttest.SetPolicy(t, host, p)

	if got := ask(stranger, ""); got.status != connectpluginv1.ServingStatus_SERVING_STATUS_SERVING {
		t.Errorf("a stranger where health is public: %+v", got)
	}

	if got := ask(stranger, echo.Type); got.code != connect.CodeNotFound {
		t.Errorf("a stranger about a service: %+v", got)
	}
}

// A watch has no deadline of unary calls, follows every change and ends with the policy that
// allowed it.
func TestGRPCHealthWatch(t *testing.T) {
	t.Parallel()

	health := connectplugin.NewHealthServer()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.HealthService = echo.Policy(), health
		c.Policy.Public = []string{"health"}
		c.Limits.CallTimeout = time.Microsecond // a unary call would be over before it began
	})
	stream, err := connect.NewClient[healthQuestion, healthAnswer](host.Stranger(t), host.URL+grpcHealth+"Watch", connect.WithGRPC()).
		CallServerStream(t.Context(), connect.NewRequest(&healthQuestion{}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()

	for _, want := range []connectpluginv1.ServingStatus{
		connectpluginv1.ServingStatus_SERVING_STATUS_SERVING, connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING,
	} {
		if !stream.Receive() || stream.Msg().GetStatus() != want {
			t.Fatalf("%v, %v; want %v", stream.Msg(), stream.Err(), want)
		}
		health.SetServingStatus("", connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
	}

	hosttest.SetPolicy(t, host, echo.Policy())

	if stream.Receive() {
		t.Errorf("after policy closed it: %v", stream.Msg())
	}
	if code := connect.CodeOf(stream.Err()); code != connect.CodeNotFound {
		t.Errorf("it ends with %v", stream.Err())
	}
	if _, err := host.Stranger(t).Post(host.URL+grpcHealth+"List", "application/grpc", http.NoBody); err != nil {
		t.Error(err)
	}
}
