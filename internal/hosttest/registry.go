package hosttest

import (
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// RegisterWith registers a request as it is.
func RegisterWith(t testing.TB, c *connectplugin.Client, req *connectpluginv1.RegisterServiceRequest) error {
	t.Helper()
	_, err := c.RegistryClient().RegisterService(t.Context(), connect.NewRequest(req))
	return err
}

// Unregister ends a registration over the wire.
func Unregister(t testing.TB, c *connectplugin.Client, registrationID string) error {
	t.Helper()
	_, err := c.RegistryClient().UnregisterService(t.Context(), connect.NewRequest(&connectpluginv1.UnregisterServiceRequest{RegistrationId: registrationID}))
	return err
}

// InProcess is a request that the host itself makes for a plugin.
func InProcess[T any](runtimeID string, msg *T) *connect.Request[T] {
	req := connect.NewRequest(msg)
	req.Header().Set("X-Plugin-Runtime-ID", runtimeID)
	return req
}

// Register registers a service type over the wire and returns the registration id.
func Register(t *testing.T, c *connectplugin.Client, serviceType, version string) (string, error) {
	t.Helper()
	resp, err := c.RegistryClient().RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: serviceType, Version: version, EndpointPath: "/" + serviceType + ".v1.X/",
	}))
	if err != nil {
		return "", err
	}
	return resp.Msg.GetRegistrationId(), nil
}

// Discover asks for a service type over the wire.
func Discover(t *testing.T, c *connectplugin.Client, serviceType, minVersion string) (*connectpluginv1.DiscoverServiceResponse, error) {
	t.Helper()
	resp, err := c.RegistryClient().DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{
		ServiceType: serviceType, MinVersion: minVersion,
	}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// UseUp lets the host itself provide a type for a moment.
func UseUp(t testing.TB, host *Host, serviceType string) {
	t.Helper()
	resp, err := host.Registry().RegisterService(t.Context(), InProcess("host-itself", &connectpluginv1.RegisterServiceRequest{ServiceType: serviceType, Version: "1.0.0"}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = host.Registry().UnregisterService(t.Context(), InProcess("host-itself", &connectpluginv1.UnregisterServiceRequest{RegistrationId: resp.Msg.GetRegistrationId()}))
	if err != nil {
		t.Fatal(err)
	}
}
