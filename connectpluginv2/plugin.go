package connectpluginv2

import (
	"errors"
	"fmt"
	"net/http"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Plugin is a [connectplugin.Plugin] whose service and client are of Connect's second
// version: for [connectplugin.PluginSet], [connectplugin.ClientConfig] and
// [connectplugin.PluginSpec], in a process of its own and in the host's. Impl is the
// interface that implementations have (a generated …Handler), Client the one that callers
// get (a generated …Client). It is safe for concurrent use.
type Plugin[Impl, Client any] struct {
	// Of says what the plugin is called, what it provides and requires. Of.Path may be empty:
	// it is that of the service.
	Of connectplugin.PluginMetadata
	// Register is the generated Register…Handler.
	Register func(*connect.Server, Impl)
	// NewClient is the generated New…Client.
	NewClient func(*connect.Client) Client
	// ServerInterceptors and ClientInterceptors are those of servers and clients. May be nil.
	ServerInterceptors []connect.ServerInterceptor
	// ClientInterceptors are those of the clients.
	ClientInterceptors []connect.ClientInterceptor
	// Options are those of servers and clients over HTTP. May be nil.
	Options []connecthttp.Option
}

var errIncomplete = errors.New("a Plugin needs Register and NewClient: write the functions that were generated")

// Metadata implements [connectplugin.Plugin].
func (p *Plugin[Impl, Client]) Metadata() connectplugin.PluginMetadata { return p.Of }

// ConnectServer implements [connectplugin.Plugin].
func (p *Plugin[Impl, Client]) ConnectServer(impl any) (path string, handler http.Handler, err error) {
	if p.Register == nil || p.NewClient == nil {
		return "", nil, errIncomplete
	}
	typed, ok := impl.(Impl)
	if !ok {
		return "", nil, fmt.Errorf("%w: %T is not a %T", connectplugin.ErrInvalidPluginImpl, impl, new(Impl))
	}
	server := connect.NewServer(p.ServerInterceptors...)
	p.Register(server, typed)
	return pathOf(server), NewHandler(server, p.Options...), nil
}

// ConnectClient implements [connectplugin.Plugin]. What it returns is a Client.
func (p *Plugin[Impl, Client]) ConnectClient(baseURL string, httpClient connectv1.HTTPClient) (any, error) {
	if p.Register == nil || p.NewClient == nil {
		return nil, errIncomplete
	}
	transport := NewTransport(endpoint{baseURL, httpClient}, p.Options...)
	return p.NewClient(connect.NewClient(transport, p.ClientInterceptors...)), nil
}

// endpoint is a base URL with the client that reaches it.
type endpoint struct {
	base   string
	client connectv1.HTTPClient
}

func (e endpoint) BaseURL() string                  { return e.base }
func (e endpoint) HTTPClient() connectv1.HTTPClient { return e.client }
