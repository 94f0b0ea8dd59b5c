package edge_test

import (
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Texts in a list, and entries of a map, take twenty times as much when they are decoded: they are counted before.
func TestAudit_ATK04_EntriesAreCountedBeforeTheyAreDecoded(t *testing.T) {
	t.Parallel()
	const many = 20_000
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	c := host.Enrol(t, "logger", nil)
	reasons, metadata := make([]string, many), map[string]string{}
	for i := range many {
		metadata[strconv.Itoa(i)] = ""
	}
	for kind, opts := range map[string][]connect.ClientOption{
		"Connect": nil, "JSON": {connect.WithProtoJSON()}, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()}, "gzip": {connect.WithSendGzip()},
		"gRPC, JSON, gzip": {connect.WithGRPC(), connect.WithProtoJSON(), connect.WithSendGzip()},
	} {
		lifecycle := connectpluginv1connect.NewPluginLifecycleClient(c.HTTPClient(), host.URL, opts...)
		registry := connectpluginv1connect.NewServiceRegistryClient(c.HTTPClient(), host.URL, opts...)
		for what, err := range map[string]error{
			"a report": hosttest.ErrorOf(lifecycle.ReportHealth(t.Context(), connect.NewRequest(&connectpluginv1.ReportHealthRequest{
				State: connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, UnavailableDependencies: reasons,
			}))),
			"a registration": hosttest.ErrorOf(registry.RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
				ServiceType: "logger", Version: "1.0.0", Metadata: metadata,
			}))),
		} {
			if code := connect.CodeOf(err); code != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "more than 4096 ") {
				t.Errorf("%s in %s: %v", what, kind, err)
			}
		}
	}
}
