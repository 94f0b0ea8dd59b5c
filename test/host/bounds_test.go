package host_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// Sizes beyond every bound of a field and within that of a message.
const (
	hugeText  = 64 << 10
	hugeCount = 20_000
)

// honestRequests are requests that a host accepts from a plugin with every right.
func honestRequests() map[string]proto.Message {
	return map[string]proto.Message{
		connectpluginv1connect.HandshakeServiceHandshakeProcedure:         wire.FreshRequest("api"),
		connectpluginv1connect.PluginLifecycleReportHealthProcedure:       &connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY},
		connectpluginv1connect.ServiceRegistryRegisterServiceProcedure:    &connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "1.0.0", EndpointPath: "/a/"},
		connectpluginv1connect.ServiceRegistryDiscoverServiceProcedure:    &connectpluginv1.DiscoverServiceRequest{ServiceType: "logger"},
		connectpluginv1connect.ServiceRegistryWatchServiceProcedure:       &connectpluginv1.WatchServiceRequest{ServiceType: "logger"},
		connectpluginv1connect.CapabilityBrokerRequestCapabilityProcedure: &connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"},
		connectpluginv1connect.HealthServiceCheckProcedure:                &connectpluginv1.HealthCheckRequest{},
		connectpluginv1connect.HealthServiceWatchProcedure:                &connectpluginv1.HealthCheckRequest{},
		// Nobody's registration: refused for that, and not for its size.
		connectpluginv1connect.ServiceRegistryUnregisterServiceProcedure: &connectpluginv1.UnregisterServiceRequest{RegistrationId: "reg-1"},
	}
}

// oversize is one field of a message beyond its bound.
type oversize struct {
	name  string
	apply func(protoreflect.Message)
}

// oversizes lists what can be too large about a message, at any depth: each string,
// each list and its elements, each map, its keys and its values.
func oversizes(d protoreflect.MessageDescriptor) []oversize {
	var out []oversize
	add := func(f protoreflect.FieldDescriptor, what string, apply func(protoreflect.Message)) {
		out = append(out, oversize{f.TextName() + what, apply})
	}
	fields := d.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			long := protoreflect.ValueOfString(strings.Repeat("a", hugeText))
			short := protoreflect.ValueOfString("a")
			add(f, ": a key", func(m protoreflect.Message) { m.Mutable(f).Map().Set(long.MapKey(), short) })
			add(f, ": a value", func(m protoreflect.Message) { m.Mutable(f).Map().Set(short.MapKey(), long) })
			add(f, ": entries", func(m protoreflect.Message) {
				for i := range hugeCount {
					m.Mutable(f).Map().Set(protoreflect.ValueOfString(fmt.Sprintf("key-%d", i)).MapKey(), short)
				}
			})
		case f.IsList():
			add(f, ": elements", func(m protoreflect.Message) {
				for i := range hugeCount {
					m.Mutable(f).List().Append(sample(f, m, i))
				}
			})
			if f.Message() == nil {
				add(f, ": an element", func(m protoreflect.Message) { m.Mutable(f).List().Append(huge(f)) })
				continue
			}
			for _, o := range oversizes(f.Message()) {
				add(f, "[0]."+o.name, func(m protoreflect.Message) {
					m.Mutable(f).List().Append(sample(f, m, 0))
					o.apply(m.Mutable(f).List().Get(0).Message())
				})
			}
		case f.Message() != nil:
			for _, o := range oversizes(f.Message()) {
				add(f, "."+o.name, func(m protoreflect.Message) { o.apply(m.Mutable(f).Message()) })
			}
		case f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind:
			add(f, "", func(m protoreflect.Message) { m.Set(f, huge(f)) })
		}
	}
	return out
}

// huge returns a value that is too large, and otherwise as good as any.
func huge(f protoreflect.FieldDescriptor) protoreflect.Value {
	text := strings.Repeat("a", hugeText)
	switch name := f.TextName(); {
	case f.Kind() == protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text))
	case strings.Contains(name, "min_version"):
		const one = ">=1.0.0 || "
		text = strings.Repeat(one, hugeText/len(one)) + ">=1.0.0"
	case strings.Contains(name, "version"):
		text = "1.0.0-" + text
	case strings.Contains(name, "path"):
		text = "/" + text + "/"
	}
	return protoreflect.ValueOfString(text)
}

// sample returns the i-th element for a list, as good as any.
func sample(f protoreflect.FieldDescriptor, m protoreflect.Message, i int) protoreflect.Value {
	if f.Message() == nil {
		return protoreflect.ValueOfString(fmt.Sprintf("name-%d", i))
	}
	e := m.Mutable(f).List().NewElement()
	fields := f.Message().Fields()
	for j := range fields.Len() {
		switch g := fields.Get(j); {
		case g.Kind() != protoreflect.StringKind:
		case strings.Contains(g.TextName(), "version"):
			e.Message().Set(g, protoreflect.ValueOfString("1.0.0"))
		case strings.Contains(g.TextName(), "path"):
			e.Message().Set(g, protoreflect.ValueOfString("/a/"))
		default:
			e.Message().Set(g, protoreflect.ValueOfString(fmt.Sprintf("name-%d", i)))
		}
	}
	return e
}

// cutShort are the fields of which what is too long is as good as unknown.
var cutShort = map[protoreflect.Name]bool{"WatchServiceRequest.epoch": true}

// boundsHost is a host with a plugin that has every right.
func boundsHost(t *testing.T, health *connectplugin.HealthServer) (host *hosttest.Host, header http.Header) {
	t.Helper()
	host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.HealthService = health
		c.Policy = hosttest.Unproven("api")
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
		c.Logger = nil
		c.Limits.MaxIdentitiesPerSelfID, c.Limits.MaxGrantsPerIdentity = 10_000, 10_000
	})
	resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("api")))
	if err != nil {
		t.Fatal(err)
	}
	return host, hosttest.IdentityHeader(resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken())
}

// Every string, list and map of every message has a bound, whichever service it is
// for. Fields to come are in it by themselves.
func TestAudit_PROTO21_EveryFieldHasABound(t *testing.T) {
	t.Parallel()
	host, header := boundsHost(t, nil)
	client := host.Stranger(t)
	honest := honestRequests()
	for _, p := range hosttest.Procedures() {
		base := honest[p.Path]
		if base == nil {
			t.Errorf("%s: this test has no honest request for it", p.Path)
			continue
		}
		wantHonest := func(when string) {
			if err := p.Call(t.Context(), client, host.URL, p.Header(header), hosttest.MustMarshal(t, base)); err != nil && connect.CodeOf(err) != wantsCode(p) {
				t.Errorf("%s, %s: %v", p.Path, when, err)
			}
		}
		wantHonest("before")
		for _, o := range oversizes(p.Input) {
			msg := dynamicpb.NewMessage(p.Input)
			hosttest.MustParse(t, hosttest.MustMarshal(t, base), msg)
			o.apply(msg)
			for protocol, opts := range hosttest.Protocols {
				err := p.Call(t.Context(), client, host.URL, p.Header(header), hosttest.MustMarshal(t, msg), opts...)
				if cutShort[p.Input.Name()+"."+protoreflect.Name(o.name)] {
					continue
				}
				if connect.CodeOf(err) != connect.CodeInvalidArgument {
					t.Errorf("%s: %s over %s: %s, want invalid_argument", p.Path, o.name, protocol, hosttest.Cut(err))
				}
				if err != nil && len(err.Error()) > 1024 {
					t.Errorf("%s: %s over %s: the error has %d bytes", p.Path, o.name, protocol, len(err.Error()))
				}
			}
		}
		wantHonest("after")
	}
}

// wantsCode is how a host answers the honest request, zero for success.
func wantsCode(p hosttest.Procedure) connect.Code {
	if p.Path == connectpluginv1connect.ServiceRegistryUnregisterServiceProcedure {
		return connect.CodeNotFound
	}
	return 0
}
