package attack_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// prover answers health questions as a plugin in another language does.
type prover struct {
	connectpluginv1connect.UnimplementedPluginControlHandler

	plugin *connectplugin.Client
	forged bool
}

func (p *prover) GetHealth(_ context.Context, req *connect.Request[connectpluginv1.GetHealthRequest]) (*connect.Response[connectpluginv1.GetHealthResponse], error) {
	proof := p.plugin.HealthProof(req.Msg.GetRuntimeId(), req.Msg.GetChallenge())
	if p.forged {
		proof[0]++
	}
	return connect.NewResponse(&connectpluginv1.GetHealthResponse{
		State: connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, Reason: "as asked", Proof: proof,
	}), nil
}

// grpcAlone refuses what is no gRPC, in the way of a server.
func grpcAlone(next http.Handler, refuse http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			next.ServeHTTP(w, r)
			return
		}
		refuse(w, r)
	})
}

// A plugin on a server that understands gRPC alone shows, too, that it answers at its endpoint, and is called there; one that
// shows it wrongly has none.
func TestAudit_USE27_AServerOfGRPCShowsIt(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]http.HandlerFunc{
		"as gRPC-Go does": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnsupportedMediaType) },
		"as grpcio does": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "2")
		},
	} {
		for _, forged := range []bool{false, true} {
			t.Run(name+map[bool]string{false: "", true: ", wrongly"}[forged], func(t *testing.T) {
				t.Parallel()
				s, e := newStreet(t, ""), &echo{}
				storage := s.enrol(t, "storage", "echo", nil)
				mux := http.NewServeMux()
				mux.Handle(connectpluginv1connect.NewPluginControlHandler(&prover{plugin: storage, forged: forged}))
				mux.Handle("/", e.handler())
				at := hosttest.ServeTLS(t, s.ca.TLS(s.ca.Certify(t, hosttest.DNS("loose.example"), hosttest.Loopback)), grpcAlone(mux, refuse))
				err := register(t, storage, "echo", at)
				if forged {
					if connect.CodeOf(err) != connect.CodePermissionDenied {
						t.Errorf("registered: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				outcome := s.through(t, s.enrol(t, "api", "echo", nil), "echo", storage.RuntimeID())
				for _, kind := range []string{"gRPC unary", "gRPC streaming"} {
					if err, known := outcome[kind]; err != nil || !known {
						t.Errorf("%s: %v in %v", kind, err, outcome)
					}
				}
			})
		}
	}
}
