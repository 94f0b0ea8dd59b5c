package handshake_test

import (
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// lastFirstVersionField is the highest field number that a handshake of the first
// wire version has, in both directions.
const lastFirstVersionField = 11

// firstVersionHost accepts peers of the first wire version for two self ids, and
// demands a secret of a third.
func firstVersionHost(t *testing.T) *hosttest.Host {
	t.Helper()
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		logger := []string{"logger"}
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"provider": {AllowUnproven: true, Provides: logger, AllowOwnAddress: true},
			"caller":   {AllowUnproven: true, Requires: logger, Capabilities: logger, HostPlugins: logger},
			"modern":   hosttest.Allow(nil),
		}}
		c.ProtocolVersion, c.MinProtocolVersion = 3, 2
		c.ServerMetadata = map[string]string{"region": "north"}
		c.Plugins, c.Impls = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}, map[string]any{"logger": &hosttest.RecordingLogger{}}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
	})
}

// A peer of the first wire version, which knows neither proofs nor ranges nor
// declarations, connects where policy accepts it, in every protocol, and the
// answer has what that version promised. Nowhere else does it get anything.
func TestHandshake_FirstVersionPeers(t *testing.T) {
	t.Parallel()
	host := firstVersionHost(t)
	for name, opts := range hosttest.Protocols {
		client := connectpluginv1connect.NewHandshakeServiceClient(host.Stranger(t), host.URL, opts...)
		ask := func(selfID string, version int32) (*connectpluginv1.HandshakeResponse, connect.Code) {
			m := hosttest.OldRequest(selfID)
			m.AppProtocolVersion, m.RequestedPlugins = version, []string{"logger"}
			m.ClientMetadata = map[string]string{"language": "another"}
			m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
				if f.Number() > lastFirstVersionField {
					t.Errorf("%s is no field of the first version", f.Name())
				}
				return true
			})
			resp, err := client.Handshake(t.Context(), connect.NewRequest(m))
			if err != nil {
				return nil, connect.CodeOf(err)
			}
			return resp.Msg, 0
		}
		got, code := ask("caller", 2)
		hosttest.WantCode(t, name+": accepted by policy", code, 0)
		if got.GetCoreProtocolVersion() != 1 || got.GetAppProtocolVersion() != 2 || got.GetRuntimeId() == "" || got.GetRuntimeToken() == "" ||
			got.GetServerMetadata()["region"] != "north" {
			t.Errorf("%s: answer %v", name, got)
		}
		if p := got.GetPlugins(); len(p) != 1 || p[0].GetName() != "logger" || len(got.GetHostCapabilities()) != 1 {
			t.Errorf("%s: plugins %v, capabilities %v", name, p, got.GetHostCapabilities())
		}
		if len(got.GetServerNonce()) != 0 || len(got.GetChallengeResponse()) != 0 {
			t.Errorf("%s: an answer to a nonce that was not sent: %v", name, got)
		}
		if code := hosttest.ReportAs(t, host, got.GetRuntimeId(), got.GetRuntimeToken()); code != 0 {
			t.Errorf("%s: the identity is worth nothing: %v", name, code)
		}
		for _, c := range []struct {
			selfID  string
			version int32
			want    connect.Code
		}{
			{"caller", 1, connect.CodeFailedPrecondition},
			{"caller", 3, 0},
			{"caller", 4, connect.CodeFailedPrecondition},
			{"modern", 2, connect.CodeUnauthenticated},
			{"stranger", 2, connect.CodeUnauthenticated},
		} {
			resp, code := ask(c.selfID, c.version)
			hosttest.WantCode(t, name+": "+c.selfID, code, c.want)
			if code == 0 && resp.GetAppProtocolVersion() != c.version {
				t.Errorf("%s: it speaks %d and was told %d", name, c.version, resp.GetAppProtocolVersion())
			}
		}
	}
}

// Peers of the first wire version do all that this version could and policy
// allows: declaring nothing costs them nothing, and gains them nothing.
func TestHandshake_FirstVersionPeersDoWhatPolicyAllows(t *testing.T) {
	t.Parallel()
	host := firstVersionHost(t)
	enrol := func(selfID string) *connectpluginv1.HandshakeResponse {
		m := hosttest.OldRequest(selfID)
		m.AppProtocolVersion = 2
		resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(m))
		if err != nil {
			t.Fatal(err)
		}
		return resp.Msg
	}
	provider, caller := enrol("provider"), enrol("caller")
	registry := connectpluginv1connect.NewServiceRegistryClient(host.Stranger(t), host.URL)
	register := func(who *connectpluginv1.HandshakeResponse, serviceType string) (*connect.Response[connectpluginv1.RegisterServiceResponse], error) {
		return registry.RegisterService(t.Context(), hosttest.WithCredentials(&connectpluginv1.RegisterServiceRequest{
			ServiceType: serviceType, Version: "1.0.0", EndpointPath: "/x.v1.X/",
		}, who.GetRuntimeId(), who.GetRuntimeToken()))
	}
	discover := func(who *connectpluginv1.HandshakeResponse) (*connect.Response[connectpluginv1.DiscoverServiceResponse], error) {
		return registry.DiscoverService(t.Context(),
			hosttest.WithCredentials(&connectpluginv1.DiscoverServiceRequest{ServiceType: "logger"}, who.GetRuntimeId(), who.GetRuntimeToken()))
	}
	registered, err := register(provider, "logger")
	if err != nil {
		t.Fatalf("the provider registers: %v", err)
	}
	found, err := discover(caller)
	if err != nil || found.Msg.GetEndpoint().GetProviderId() != provider.GetRuntimeId() {
		t.Errorf("the caller discovers: %v, %v", found, err)
	}
	watch, err := registry.WatchService(t.Context(),
		hosttest.WithCredentials(&connectpluginv1.WatchServiceRequest{ServiceType: "logger"}, caller.GetRuntimeId(), caller.GetRuntimeToken()))
	if err != nil || !watch.Receive() {
		t.Fatalf("the caller watches: %v", err)
	}
	t.Cleanup(func() { _ = watch.Close() })
	grant, err := connectpluginv1connect.NewCapabilityBrokerClient(host.Stranger(t), host.URL).RequestCapability(t.Context(),
		hosttest.WithCredentials(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}, caller.GetRuntimeId(), caller.GetRuntimeToken()))
	if err != nil || grant.Msg.GetGrant().GetBearerToken() == "" {
		t.Errorf("the caller asks for a capability: %v", err)
	}
	log := hosttest.WithCredentials(&loggerv1.LogRequest{}, caller.GetRuntimeId(), caller.GetRuntimeToken())
	if _, err := loggerv1connect.NewLoggerClient(host.Stranger(t), host.URL).Log(t.Context(), log); err != nil {
		t.Errorf("the caller calls the host's plugin: %v", err)
	}
	// What policy does not allow.
	_, err = register(caller, "logger")
	hosttest.WantCode(t, "the caller registers", connect.CodeOf(err), connect.CodePermissionDenied)
	_, err = register(provider, "storage")
	hosttest.WantCode(t, "the provider registers another type", connect.CodeOf(err), connect.CodePermissionDenied)
	if _, err = discover(provider); err == nil {
		t.Error("the provider discovers what it may not require")
	}
	_, err = registry.UnregisterService(t.Context(), hosttest.WithCredentials(&connectpluginv1.UnregisterServiceRequest{
		RegistrationId: registered.Msg.GetRegistrationId(),
	}, provider.GetRuntimeId(), provider.GetRuntimeToken()))
	if err != nil || host.Registered("logger", provider.GetRuntimeId()) {
		t.Errorf("the provider unregisters: %v", err)
	}
}
