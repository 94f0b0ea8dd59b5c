package main

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// way is a way to the plugin that is replaced.
type way struct {
	name string
	base string
	http connect.HTTPClient
}

func (w way) client(procedure string) *connect.Client[text, text] {
	return connect.NewClient[text, text](w.http, w.base+procedure)
}

// directWay is that of the host itself. It launches the plugin.
func directWay(host *connectplugin.Host) (way, error) {
	url, client, err := host.Launcher().GetServiceClient(echoName, echoName)
	if err != nil {
		return way{}, fmt.Errorf("launch: %w", err)
	}
	return way{name: "direct", base: url, http: client}, nil
}

// routedWay is that of another plugin, through the router.
func routedWay(ctx context.Context, user *connectplugin.Client) (way, error) {
	service, err := user.Service(ctx, echoName, "")
	if err != nil {
		return way{}, fmt.Errorf("service: %w", err)
	}
	return way{name: "routed", base: service.BaseURL(), http: service.HTTPClient()}, nil
}
