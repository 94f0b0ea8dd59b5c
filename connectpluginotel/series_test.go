package connectpluginotel_test

import (
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginotel"
)

// A provider that answers to whatever procedures and with whatever codes leaves room for the names of others.
func TestSeries_OneProviderLeavesRoom(t *testing.T) {
	t.Parallel()

	prom, err := connectpluginotel.NewPrometheus(connectpluginotel.Config{})
	if err != nil {
		t.Fatal(err)
	}

	routed := func(provider, procedure string, code connect.Code) {
		prom.CallRouted(t.Context(), connectplugin.RoutedCall{
			Caller: "caller", Provider: provider, Type: "echo", Procedure: procedure, Protocol: connectplugin.ProtocolConnect, Code: code,
		})
	}

	for code := range connect.CodeUnauthenticated + 1 {
		for i := range 2 * connectpluginotel.DefaultMaxSeries / 16 {
			routed("greedy", fmt.Sprintf("/test.v1.Echo/P%d", i), code)
		}
	}

	routed("other", "/test.v1.Echo/Unary", 0)

	lines := (&rig{prom: prom}).scrape(t)
	if !has(lines, "rpc_client_call_duration_seconds_count", "1", `connectplugin_provider="other"`, `rpc_method="test.v1.Echo/Unary"`) {
		t.Errorf("the other provider has no name in %d lines", len(lines))
	}

	greedy := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "rpc_client_call_duration_seconds_count{") && strings.Contains(line, `="greedy"`) {
			greedy++
		}
	}

	if most := connectpluginotel.DefaultMaxSeries * 3 / 8; greedy == 0 || greedy > most {
		t.Errorf("%d series of one provider, want %d at most", greedy, most)
	}
}
