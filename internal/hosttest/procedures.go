package hosttest

import (
	"context"
	"maps"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// servedByPlugins are the services of the wire that plugins serve; a host serves
// all others.
var servedByPlugins = map[protoreflect.FullName]bool{
	"connectplugin.v1.PluginControl": true, "connectplugin.v1.PluginIdentity": true,
}

// Procedure is one method of the services that a host serves.
type Procedure struct {
	Path   string
	Stream bool // of answers
	Input  protoreflect.MessageDescriptor
}

// Header is what goes with a call: a handshake with an identity would renew that.
func (p Procedure) Header(identity http.Header) http.Header {
	if p.IsHandshake() {
		return http.Header{}
	}
	return identity
}

// IsHandshake reports whether strangers may call.
func (p Procedure) IsHandshake() bool { return strings.HasSuffix(p.Path, "/Handshake") }

// Call sends a message, of whatever type, and returns the error of the first
// answer. Nil msg is the empty one.
func (p Procedure) Call(ctx context.Context, client connect.HTTPClient, base string, header http.Header, msg []byte, opts ...connect.ClientOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req := connect.NewRequest(&emptypb.Empty{})
	req.Msg.ProtoReflect().SetUnknown(msg)
	maps.Copy(req.Header(), header)
	c := connect.NewClient[emptypb.Empty, emptypb.Empty](client, base+p.Path, opts...)
	if !p.Stream {
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

// Procedures lists every method of every service that a host serves, those to
// come included.
func Procedures() []Procedure {
	var out []Procedure
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
				out = append(out, Procedure{
					Path:   "/" + string(service.FullName()) + "/" + string(m.Name()),
					Stream: m.IsStreamingServer(), Input: m.Input(),
				})
			}
		}
	}
	return out
}
