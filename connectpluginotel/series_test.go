package connectpluginotel_test

import (
	"fmt"
	"slices"
	"strconv"
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

// A caller that asks the host for whatever it likes leaves room for the names of others, and all that do leave room for calls to providers.
func TestSeries_CallersOfTheHostLeaveRoom(t *testing.T) {
	t.Parallel()

	prom, err := connectpluginotel.NewPrometheus(connectpluginotel.Config{})
	if err != nil {
		t.Fatal(err)
	}

	count := func(words ...string) (n int) {
		for _, line := range (&rig{prom: prom}).scrape(t) {
			lacks := func(word string) bool { return !strings.Contains(line, word) }
			if strings.HasPrefix(line, "rpc_server_call_duration_seconds_count{") && !slices.ContainsFunc(words, lacks) {
				n++
			}
		}

		return n
	}

	greedy := func(name string) {
		for code := range connect.CodeUnauthenticated + 1 {
			for i := range 12 {
				for _, protocol := range []connectplugin.Protocol{connectplugin.ProtocolConnect, connectplugin.ProtocolGRPC, connectplugin.ProtocolGRPCWeb} {
					procedure := fmt.Sprintf("/connectplugin.v1.Own/P%d", i)
					prom.CallServed(t.Context(), connectplugin.ServedCall{Caller: name, Procedure: procedure, Protocol: protocol, Code: code})
					prom.CallRouted(t.Context(), connectplugin.RoutedCall{Caller: name, Type: "echo", Procedure: procedure, Protocol: protocol, Code: code})
				}
			}
		}
	}

	greedy("greedy")

	if n, most := count(`connectplugin_caller="greedy"`), connectpluginotel.DefaultMaxSeries*3/32+connectpluginotel.DefaultMaxSeries/16; n == 0 || n > most {
		t.Errorf("%d series of one caller, want %d at most", n, most)
	}

	prom.CallServed(t.Context(), connectplugin.ServedCall{Caller: "other", Procedure: "/connectplugin.v1.Own/P1", Protocol: connectplugin.ProtocolConnect})

	if count(`connectplugin_caller="other"`, `rpc_method="connectplugin.v1.Own/P1"`) != 1 {
		t.Error("another caller has no name")
	}

	for i := range 20 {
		greedy(fmt.Sprint("greedy-", i))
	}

	prom.CallRouted(t.Context(), connectplugin.RoutedCall{
		Caller: "caller", Provider: "late", Type: "echo", Procedure: "/test.v1.Echo/Unary", Protocol: connectplugin.ProtocolConnect,
	})

	if count(`connectplugin_provider="late"`, `rpc_method="test.v1.Echo/Unary"`) != 1 {
		t.Error("a provider has no name")
	}
}

// However many plugins, types, procedures and codes there are, so many series are kept, and no call is lost.
func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()

	const series, calls = 10, 2000

	prom, err := connectpluginotel.NewPrometheus(connectpluginotel.Config{MaxSeries: series})
	if err != nil {
		t.Fatal(err)
	}

	protocols := []connectplugin.Protocol{connectplugin.ProtocolConnect, connectplugin.ProtocolGRPC, connectplugin.ProtocolGRPCWeb}

	for i := range calls {
		name, code, protocol := fmt.Sprint("name-", i), connect.Code(i%17), protocols[i%3]
		prom.CallRouted(t.Context(), connectplugin.RoutedCall{Caller: name, Provider: name, Type: name, Procedure: "/" + name, Code: code, Protocol: protocol})
		prom.CallServed(t.Context(), connectplugin.ServedCall{Caller: name, Procedure: "/" + name, Code: code, Protocol: protocol})
	}

	r := &rig{prom: prom}
	for metric, want := range map[string]int{
		"rpc_server_call_duration_seconds_count": 2 * calls, "rpc_client_call_duration_seconds_count": calls, "connectplugin_provider_wait_seconds_count": calls,
	} {
		lines, sum := 0, 0

		for _, line := range r.scrape(t) {
			if strings.HasPrefix(line, metric+"{") {
				n, err := strconv.Atoi(line[strings.LastIndexByte(line, ' ')+1:])
				if err != nil {
					t.Fatal(err)
				}
				lines, sum = lines+1, sum+n
			}
		}

		if most := series + 2*2*17; lines > most || sum != want { // two systems and 17 codes, of routed and of served calls
			t.Errorf("%s: %d series of %d calls, want %d of %d at most", metric, lines, sum, most, want)
		}
	}
}
