package connectpluginv2

import (
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// NewService returns a service for [connectplugin.PluginServerConfig] that server serves:
// Connect, gRPC and gRPC-Web. Its handlers learn their caller from
// [connectplugin.CallerFromContext] and the headers. Options are those of [connecthttp.Mount];
// short answers are not compressed, and messages of up to 4 MiB are read, unless they say
// otherwise. The path is that of the services that are registered with server by now: a
// plugin with several service types has a server for each.
func NewService(serviceType, version string, server *connect.Server, options ...connecthttp.Option) connectplugin.PluginService {
	return connectplugin.PluginService{Type: serviceType, Version: version, Path: pathOf(server), Handler: NewHandler(server, options...)}
}

// NewHandler returns the handler of [NewService], for [connectplugin.ServiceRouter] and for
// whoever serves by hand.
func NewHandler(server *connect.Server, options ...connecthttp.Option) http.Handler {
	mux := http.NewServeMux()
	short := connecthttp.WithCompressMinBytes(connectplugin.CompressMinBytes)
	connecthttp.Mount(mux, server, append([]connecthttp.Option{short}, options...)...)
	return mux
}

// pathOf returns the path below which all procedures of a server are: that of its service,
// or, where it has several, the root.
func pathOf(server *connect.Server) string {
	path := ""
	for spec := range server.Specs() {
		service := spec.Procedure[:strings.LastIndexByte(spec.Procedure, '/')+1]
		if path == "" {
			path = service
		}
		if path != service {
			return "/"
		}
	}
	return path
}
