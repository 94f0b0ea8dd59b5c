package connectplugin_test

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// procedure is one method of the services that a host serves.
type procedure struct {
	path   string
	stream bool // of answers
	input  protoreflect.MessageDescriptor
}

// servedByPlugins are the services of the wire that plugins serve; a host serves
// all others.
var servedByPlugins = map[protoreflect.FullName]bool{
	"connectplugin.v1.PluginControl": true, "connectplugin.v1.PluginIdentity": true,
}

// hostProcedures lists every method of every service that a host serves, those to
// come included.
func hostProcedures() []procedure {
	var out []procedure
	for _, file := range []protoreflect.FileDescriptor{
		connectpluginv1.File_plugin_v1_handshake_proto, connectpluginv1.File_plugin_v1_lifecycle_proto,
		connectpluginv1.File_plugin_v1_registry_proto, connectpluginv1.File_plugin_v1_broker_proto,
		connectpluginv1.File_plugin_v1_health_proto, connectpluginv1.File_plugin_v1_plugininfo_proto,
	} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			if servedByPlugins[service.FullName()] {
				continue
			}
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				out = append(out, procedure{
					path:   "/" + string(service.FullName()) + "/" + string(m.Name()),
					stream: m.IsStreamingServer(), input: m.Input(),
				})
			}
		}
	}
	return out
}

// isHandshake reports whether strangers may call.
func (p procedure) isHandshake() bool { return strings.HasSuffix(p.path, "/Handshake") }

// call sends a message, of whatever type, and returns the error of the first
// answer. Nil msg is the empty one.
func (p procedure) call(ctx context.Context, client connect.HTTPClient, base string, header http.Header, msg []byte, opts ...connect.ClientOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req := connect.NewRequest(&emptypb.Empty{})
	req.Msg.ProtoReflect().SetUnknown(msg)
	maps.Copy(req.Header(), header)
	c := connect.NewClient[emptypb.Empty, emptypb.Empty](client, base+p.path, opts...)
	if !p.stream {
		_, err := c.CallUnary(ctx, req)
		return err
	}
	stream, err := c.CallServerStream(ctx, req)
	if err != nil {
		return err
	}
	defer func() {
		cancel()
		_ = stream.Close()
	}()
	stream.Receive()
	return stream.Err()
}

// identityHeader is what a caller sends to prove who it is.
func identityHeader(runtimeID, token string) http.Header {
	return http.Header{"X-Plugin-Runtime-Id": {runtimeID}, "Authorization": {"Bearer " + token}}
}

func TestHostProcedures_AreServed(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(loggerPolicy()))
	procedures := hostProcedures()
	const atLeast = 9 // those of the first wire version
	if len(procedures) < atLeast {
		t.Errorf("found %d procedures only", len(procedures))
	}
	api := host.Enrol(t, "api", nil)
	for _, p := range procedures {
		for protocol, opts := range protocols {
			err := p.call(t.Context(), host.Stranger(t), host.URL, identityHeader(api.RuntimeID(), api.RuntimeToken()), nil, opts...)
			if code := connect.CodeOf(err); err != nil && (code == connect.CodeUnimplemented || code == connect.CodeUnauthenticated) {
				t.Errorf("%s over %s: %v", p.path, protocol, err)
			}
		}
	}
}
