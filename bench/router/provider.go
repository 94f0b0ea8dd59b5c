package main

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

const (
	findWait  = 10 * time.Second
	findPause = 20 * time.Millisecond
)

// findProvider returns the route of the provider, as soon as it is registered.
func (c *caller) findProvider(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, findWait)
	defer cancel()
	for {
		resp, err := c.identity.RegistryClient().DiscoverService(ctx, connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{
			ServiceType: serviceType,
		}))
		if err == nil {
			return resp.Msg.GetEndpoint().GetEndpointUrl(), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("find the provider: %w", err)
		case <-time.After(findPause):
		}
	}
}
