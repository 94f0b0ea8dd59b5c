package host_test

import (
	"testing"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestHostProcedures_AreServed(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	procedures := hosttest.Procedures()
	const atLeast = 9 // those of the first wire version
	if len(procedures) < atLeast {
		t.Errorf("found %d procedures only", len(procedures))
	}
	api := host.Enrol(t, "api", nil)
	for _, p := range procedures {
		for protocol, opts := range hosttest.Protocols {
			err := p.Call(t.Context(), host.Stranger(t), host.URL, hosttest.IdentityHeader(api.RuntimeID(), api.RuntimeToken()), nil, opts...)
			if code := connect.CodeOf(err); err != nil && (code == connect.CodeUnimplemented || code == connect.CodeUnauthenticated) {
				t.Errorf("%s over %s: %v", p.Path, protocol, err)
			}
		}
	}
}
