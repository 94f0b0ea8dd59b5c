package host_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// calling returns a plugin that provides the logger, and a call of it through the host.
func calling(t *testing.T, host *hosttest.Host) (logger *hosttest.Plugin, caller *connectplugin.Client, call func() error) {
	t.Helper()
	logger = host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
	caller = host.Enrol(t, "api", hosttest.Requiring("logger"))
	calls := loggerv1connect.NewLoggerClient(caller.HTTPClient(), host.URL+"/services/logger/-")
	return logger, caller, func() error {
		_, err := calls.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "m"}))
		return err
	}
}

// Who follows a host that ends is told so.
func TestAdmin_FollowEndsWithTheHost(t *testing.T) {
	t.Parallel()
	host := administered(t, nil)
	stream, err := reader(host, host.Enrol(t, "viewer", nil).HTTPClient()).Follow(t.Context(), connect.NewRequest(&adminv1.FollowRequest{}))
	if err != nil || !stream.Receive() {
		t.Fatalf("Follow: %v, %v", err, stream.Err())
	}
	defer func() { _ = stream.Close() }()
	ended := make(chan error, 1)
	go func() { ended <- host.Shutdown(context.Background()) }()
	for stream.Receive() {
		continue
	}
	wantCode(t, "as the host ends", stream.Err(), connect.CodeUnavailable)
	if err := hosttest.Arrival(t, ended); err != nil {
		t.Error(err)
	}
}

// Who asks for single calls gets each as it ends, and who does not gets none.
func TestAdmin_FollowCalls(t *testing.T) {
	t.Parallel()
	host := administered(t, nil)
	logger, caller, call := calling(t, host)
	read := reader(host, host.Enrol(t, "viewer", nil).HTTPClient())
	follow := func(calls bool) *connect.ServerStreamForClient[adminv1.FollowResponse] {
		stream, err := read.Follow(t.Context(), connect.NewRequest(&adminv1.FollowRequest{Calls: calls, Interval: durationpb.New(time.Millisecond)}))
		if err != nil || !stream.Receive() {
			t.Fatalf("Follow: %v, %v", err, stream.Err())
		}
		t.Cleanup(func() { _ = stream.Close() })
		return stream
	}
	with, without := follow(true), follow(false)
	if err := call(); err != nil {
		t.Fatal(err)
	}
	host.Revoke(logger.Client.RuntimeID())
	wantCode(t, "a call of nobody", call(), connect.CodeUnavailable)
	var got []*adminv1.CallInfo
	for len(got) < 2 && with.Receive() {
		got = append(got, with.Msg().GetCalls()...)
	}
	if len(got) != 2 {
		t.Fatalf("%d calls: %v, %v", len(got), got, with.Err())
	}
	answered, failed := got[0], got[1]
	if answered.GetCaller() != "api" || answered.GetCallerRuntimeId() != caller.RuntimeID() || answered.GetProvider() != "logger" ||
		answered.GetProviderRuntimeId() != logger.Client.RuntimeID() || answered.GetType() != "logger" || answered.GetProcedure() != loggerv1connect.LoggerLogProcedure ||
		answered.GetProtocol() != "connect" || answered.GetCode() != "" || answered.GetDuration().AsDuration() <= 0 ||
		answered.GetRequestBytes() == 0 || answered.GetEndedAt() == nil {
		t.Errorf("the call is %v", answered)
	}
	if failed.GetCode() != "unavailable" || failed.GetProvider() != "" || failed.GetCaller() != "api" {
		t.Errorf("the one of nobody is %v", failed)
	}
	seen := false
	for !seen && without.Receive() {
		if n := len(without.Msg().GetCalls()); n > 0 {
			t.Errorf("%d calls that nobody asked for", n)
		}
		seen = len(without.Msg().GetSnapshot().GetEdges()) > 0
	}
	if !seen {
		t.Errorf("the stream ended: %v", without.Err())
	}
}

// Host.Plugins says of each plugin how it proved its name, with which certificate until when, and what
// went wrong with it last.
func TestHost_PluginsSaysHowProven(t *testing.T) {
	t.Parallel()
	var router *connectplugin.ServiceRouter
	host := administered(t, func(c *connectplugin.ServeConfig) {
		router = connectplugin.NewServiceRouter(connectplugin.NewHandshakeServer(c), nil, nil)
		c.ServiceRouter = router
	})
	logger, _, call := calling(t, host)
	nowhere := hosttest.Listen(t)
	_ = nowhere.Close()
	router.RegisterPluginEndpoint(logger.Client.RuntimeID(), "https://"+nowhere.Addr().String())
	if err := call(); err == nil {
		t.Fatal("nobody answers")
	}
	shown := map[string]*adminv1.PluginInfo{}
	for _, p := range snapshot(t, reader(host, host.Enrol(t, "viewer", nil).HTTPClient())).GetPlugins() {
		shown[p.GetRuntimeId()] = p
	}
	proofs := map[string]connectplugin.PluginProof{}
	for _, p := range host.Plugins() {
		if i := shown[p.RuntimeID]; i.GetSelfId() != p.SelfID || i.GetLastError() != p.LastError || i.GetCertificate() != p.Certificate ||
			!i.GetEnrolledAt().AsTime().Equal(p.Enrolled) || i.GetEndpoint() != p.Endpoint || !slices.Equal(i.GetServices(), p.Services) ||
			p.LastError != "" && !i.GetLastErrorAt().AsTime().Equal(p.LastErrorAt) || !slices.Equal(i.GetMayProvide(), p.Rights.Provides) ||
			!slices.Equal(i.GetMayRequire(), p.Rights.Requires) {
			t.Errorf("the admin service shows %v, Plugins %+v", i, p)
		}
		if p.SelfID == "viewer" {
			continue
		}
		proofs[p.SelfID] = p.Proof
		if p.Enrolled.IsZero() || time.Since(p.Enrolled) > time.Hour || p.Enrolled.After(p.Since) {
			t.Errorf("%s enrolled at %v", p.SelfID, p.Enrolled)
		}
		if certified := p.SelfID == "logger"; certified != (p.Certificate == host.Authority.PluginIdentity("logger")) ||
			certified != p.CertificateEnds.After(time.Now()) || certified != (p.LastError != "") || certified == p.LastErrorAt.IsZero() {
			t.Errorf("%+v", p)
		}
	}
	if proofs["logger"] != connectplugin.ProofSecretAndCertificate || proofs["api"] != connectplugin.ProofSecret {
		t.Errorf("proofs: %v", proofs)
	}
}
