package main

import (
	"bytes"
	"context"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const (
	envRole   = "CONFORMANCE_TEST_ROLE"
	roleOpen  = "open host"
	shortRows = time.Second
)

// TestMain lets the test's own program be what the kit tests.
func TestMain(m *testing.M) {
	role := os.Getenv(envRole)
	if role == "" {
		hosttest.Main(m)
		return
	}
	serve := func(ctx context.Context) error { return serveRole(ctx, role) }
	if role == roleOpen {
		serve = serveOpenHost
	}
	if err := untilSignal(serve); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// serveOpenHost is a host that lets everybody do everything, and never mind the time.
func serveOpenHost(ctx context.Context) error {
	config, secret, err := ownHost()
	if err != nil {
		return err
	}
	all := []string{"*"}
	return connectplugin.Serve(&connectplugin.ServeConfig{
		Addr: os.Getenv(envAddr), TLS: config, ProtocolVersion: highestApp, MinProtocolVersion: lowestApp,
		HandshakeAuth: connectplugin.HandshakeAuth{MaxClockSkew: 2 * farOff},
		Policy: &connectplugin.Policy{Default: &connectplugin.PluginPolicy{
			Secret: secret, Provides: all, Requires: all, AllowOwnAddress: true,
		}},
		StopCh: ctx.Done(),
	})
}

// playRole plays a table with a role of this program.
func playRole(t *testing.T, role string, o *options, limit time.Duration, play func(context.Context, *options, *table)) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.command = []string{"env", envRole + "=" + role, self}
	var out bytes.Buffer
	table := &table{out: &out, first: o.first, limit: limit}
	play(t.Context(), o, table)
	return out.String(), table.end()
}

const allProtocols = "connect,grpc,grpcweb"

// The library's own plugin and host hold every row, and a plugin of the first version those that
// it can have.
func TestOwnPeersHold(t *testing.T) {
	t.Parallel()
	for role, tt := range map[string]struct {
		options options
		play    func(context.Context, *options, *table)
		left    int // rows that it cannot have
	}{
		"plugin": {options{protocols: allProtocols}, playHost, 0},
		"first":  {options{protocols: allProtocols, first: true}, playHost, 31},
		"host":   {options{}, playPlugins, 0},

		"first host": {options{first: true}, playPlugins, 26},
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			out, err := playRole(t, role, &tt.options, 4*rowTime, tt.play) // the machine may be busy
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if left := strings.Count(out, "\n-  "); left != tt.left || strings.Count(out, "holds ") < 30 {
				t.Errorf("%d rows are left out, want %d:\n%s", left, tt.left, out)
			}
		})
	}
}

// A plugin that proves nothing, believes everybody and resumes nothing fails the rows that
// ask for it.
func TestTheKitTellsOfACarelessPlugin(t *testing.T) {
	t.Parallel()
	out, err := playRole(t, "first", &options{protocols: allProtocols, lenient: true}, shortRows, playHost)
	if err == nil {
		t.Error("no row failed")
	}
	tells(t, out,
		"declares what it provides and requires",
		"makes the proofs of test vectors, and takes no answer with another",
		"proves the secret: a nonce of 32 bytes, a time, a proof",
		"serves nobody who has the certificate of another plugin",
		"serves nobody without a certificate",
		"proves that it answers for its runtime id, and for no other",
		"resumes after a cut and misses nothing",
		"is told where it missed something",
		"it is called with a grant, and learns who calls",
		"one that policy does not give it is not found",
		"has another grant before one ends",
		"has another grant where one was revoked, and keeps its identity",
		"renews its token and keeps its runtime id",
		"enrols anew when its identity was ended",
		"comes back after the loss of its host",
		"says that it leaves",
		"leaves then, too",
		"enrols anew with one that forgets it at once, and less and less often",
		"refuses one that has the certificate of a plugin",
		"refuses one that gives another token than it proved",
	)
}

// A host that lets everybody do everything fails the rows about that.
func TestTheKitTellsOfACarelessHost(t *testing.T) {
	t.Parallel()
	out, err := playRole(t, roleOpen, &options{}, shortRows, playPlugins)
	if err == nil {
		t.Error("no row failed")
	}
	tells(t, out,
		"refuses one that is from the future",
		"refuses one of a self id that policy does not name",
		"refuses to register what policy does not allow",
	)
}

func tells(t *testing.T, out string, rows ...string) {
	t.Helper()
	for _, row := range rows {
		if !strings.Contains(out, "FAILS  "+row) {
			t.Errorf("the row %q did not fail", row)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"plugin"}, {"nothing", "--", "true"}, {"serve", "nothing"}, {"host", "-unknown"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
	if o, err := parse("plugin", []string{"-first-version", "--", "a", "-b"}); err != nil || !o.first || len(o.command) != 2 {
		t.Errorf("%+v, %v", o, err)
	}
}

// scripted is a registry whose watch tells what a script says.
type scripted struct {
	connectpluginv1connect.UnimplementedServiceRegistryHandler

	events []*connectpluginv1.WatchServiceEvent
}

func (s scripted) WatchService(_ context.Context, _ *connect.Request[connectpluginv1.WatchServiceRequest], stream *connect.ServerStream[connectpluginv1.WatchServiceEvent]) error {
	for _, e := range s.events {
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	return nil
}

// A host that asks the provider at the moment of a change tells what it saw, before or beside what was
// reported: that is no mistake, and a number that is left out is one.
func TestTuned_Until(t *testing.T) {
	t.Parallel()
	const unhealthy = connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY
	for name, tt := range map[string]struct {
		states  []connectpluginv1.HealthState
		numbers []uint64
		want    string // empty for none
	}{
		"what was reported":     {[]connectpluginv1.HealthState{healthy}, []uint64{5}, ""},
		"what it saw, before":   {[]connectpluginv1.HealthState{degraded, unhealthy, healthy}, []uint64{5, 6, 7}, ""},
		"a number is left out":  {[]connectpluginv1.HealthState{degraded, healthy}, []uint64{5, 7}, "number 7 instead of 6"},
		"the first is left out": {[]connectpluginv1.HealthState{healthy}, []uint64{6}, "number 6 instead of 5"},
		"it never comes":        {[]connectpluginv1.HealthState{degraded}, []uint64{5}, "SERVICE_STATE_AVAILABLE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s scripted
			for i, state := range tt.states {
				s.events = append(s.events, &connectpluginv1.WatchServiceEvent{State: statesOf[state], Sequence: tt.numbers[i]})
			}
			_, handler := connectpluginv1connect.NewServiceRegistryHandler(s)
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			watch, err := (&wire{client: server.Client(), url: server.URL}).watch(t.Context(), &connectpluginv1.WatchServiceRequest{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = watch.until(healthy, &connectpluginv1.WatchServiceEvent{Sequence: 4})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
