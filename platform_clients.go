package connectplugin

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// controlTimeout bounds a call to a plugin's control services whose context has no end.
const controlTimeout = 10 * time.Second

// controlOptions bound messages and time of the host's own calls to plugins.
func controlOptions() []connect.ClientOption {
	return []connect.ClientOption{
		connect.WithReadMaxBytes(maxHealthAnswer), connect.WithInterceptors(deadlineInterceptor(controlTimeout)),
	}
}

// PluginControlClient calls a plugin's PluginControl service, which serves its host alone.
// It is safe for concurrent use.
type PluginControlClient struct {
	client connectpluginv1connect.PluginControlClient
}

// NewPluginControlClient makes a client for the plugin at a base URL. The HTTP client has to
// show the host's certificate. Each call takes at most 10 s.
func NewPluginControlClient(endpoint string, httpClient connect.HTTPClient) *PluginControlClient {
	return &PluginControlClient{client: connectpluginv1connect.NewPluginControlClient(httpClient, endpoint, controlOptions()...)}
}

// GetHealth asks the plugin how it is.
func (c *PluginControlClient) GetHealth(ctx context.Context) (*connectpluginv1.GetHealthResponse, error) {
	resp, err := c.client.GetHealth(ctx, connect.NewRequest(&connectpluginv1.GetHealthRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// Shutdown asks the plugin to end within a grace period, zero for its own, and reports
// whether it will. It returns before the plugin has ended.
func (c *PluginControlClient) Shutdown(ctx context.Context, gracePeriodSeconds int32, reason string) (bool, error) {
	resp, err := c.client.Shutdown(ctx, connect.NewRequest(&connectpluginv1.ShutdownRequest{
		GracePeriodSeconds: gracePeriodSeconds, Reason: reason,
	}))
	if err != nil {
		return false, err
	}
	return resp.Msg.GetAcknowledged(), nil
}

// PluginIdentityClient calls a plugin's PluginIdentity service, which serves its host alone.
// It is safe for concurrent use.
type PluginIdentityClient struct {
	client connectpluginv1connect.PluginIdentityClient
}

// NewPluginIdentityClient makes a client for the plugin at a base URL. The HTTP client has to
// show the host's certificate, and must not be one in plaintext: the identity is a secret.
// Each call takes at most 10 s.
func NewPluginIdentityClient(baseURL string, httpClient connect.HTTPClient) *PluginIdentityClient {
	return &PluginIdentityClient{client: connectpluginv1connect.NewPluginIdentityClient(httpClient, baseURL, controlOptions()...)}
}

// GetPluginInfo asks the plugin what it is. The answer is a claim and no proof.
func (c *PluginIdentityClient) GetPluginInfo(ctx context.Context) (*connectpluginv1.GetPluginInfoResponse, error) {
	resp, err := c.client.GetPluginInfo(ctx, connect.NewRequest(&connectpluginv1.GetPluginInfoRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// SetRuntimeIdentity gives the plugin an identity at the host with that URL. A plugin that
// does not take it is an error.
func (c *PluginIdentityClient) SetRuntimeIdentity(ctx context.Context, runtimeID string, runtimeToken string, hostURL string) error {
	return c.set(ctx, runtimeID, runtimeToken, hostURL, time.Time{})
}

func (c *PluginIdentityClient) set(ctx context.Context, runtimeID, runtimeToken, hostURL string, expires time.Time) error {
	m := &connectpluginv1.SetRuntimeIdentityRequest{RuntimeId: runtimeID, RuntimeToken: runtimeToken, HostUrl: hostURL}
	if !expires.IsZero() {
		m.TokenExpiresAt = timestamppb.New(expires)
	}
	resp, err := c.client.SetRuntimeIdentity(ctx, connect.NewRequest(m))
	if err != nil {
		return err
	}
	if !resp.Msg.GetAcknowledged() {
		return errorf(connect.CodeFailedPrecondition, "the plugin did not take the identity")
	}
	return nil
}
