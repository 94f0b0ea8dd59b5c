package edge_test

import (
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A call to one of the host's own services counts once more for each 16 KiB of its message, while that comes and until it ends.
func TestAudit_ATK14_OpenCallsOfLongMessages(t *testing.T) {
	t.Parallel()
	const most, calls, message = 32, 6, 100 << 10 // of 7 seats each
	for protocol, kind := range map[string]string{"Connect": "application/proto", "gRPC": "application/grpc", "gRPC-Web": "application/grpc-web+proto"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(l *connectplugin.Limits) { l.MaxOpenCallsPerIdentity, l.BodyTimeout = most, hosttest.Wait }, nil)
			c := r.Enrol(t, "registrar", nil)
			header := hosttest.IdentityHeader(c.RuntimeID(), c.RuntimeToken())
			header.Set("Content-Type", kind)
			begin := make([]byte, message)
			copy(begin, []byte{0, 0, 2, 0, 0}) // an envelope of 128 KiB
			for range 2 {                      // the second time what the first held is given back
				var all []*stuck
				answers := make(chan string, calls)
				for range calls {
					s := stick(t, r.Stranger(t), r.URL+connectpluginv1connect.ServiceRegistryDiscoverServiceProcedure, header.Clone(), begin)
					go func() { answers <- <-s.answer }()
					all = append(all, s)
				}
				if answer := hosttest.Arrival(t, answers); !says(answer, connect.CodeResourceExhausted) {
					t.Fatal(answer)
				}
				for _, s := range all {
					_ = s.body.Close()
				}
				refused := 1
				for range calls - 1 {
					if says(hosttest.Arrival(t, answers), connect.CodeResourceExhausted) {
						refused++
					}
				}
				if refused > 2 {
					t.Errorf("%d of %d are refused, where 4 have room", refused, calls)
				}
			}
			if events, _ := limitedOf(r.Host, "Limits.MaxOpenCallsPerIdentity"); len(events) == 0 || events[0].SelfID != "registrar" {
				t.Errorf("the audit has %v", events)
			}
		})
	}
}
