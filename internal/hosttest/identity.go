package hosttest

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// BearerHeader returns a header with the given credential.
func BearerHeader(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

// BadHeaders are ways not to prove an identity.
func BadHeaders(runtimeID, token string) map[string]http.Header {
	return map[string]http.Header{
		"nothing":         {},
		"id alone":        {"X-Plugin-Runtime-Id": {runtimeID}},
		"token alone":     {"Authorization": {"Bearer wrong" + token}},
		"wrong token":     IdentityHeader(runtimeID, "wrong"),
		"token cut":       IdentityHeader(runtimeID, token[:len(token)-1]),
		"unknown id":      IdentityHeader("nobody-0123456789", token),
		"token as basic":  {"X-Plugin-Runtime-Id": {runtimeID}, "Authorization": {"Basic " + token}},
		"two tokens":      {"X-Plugin-Runtime-Id": {runtimeID}, "Authorization": {"Bearer " + token, "Bearer " + token}},
		"token in a list": {"X-Plugin-Runtime-Id": {runtimeID}, "Authorization": {"Bearer " + token + ", Bearer x"}},
	}
}

// OldRequest is a handshake of the first wire version.
func OldRequest(selfID string) *connectpluginv1.HandshakeRequest {
	return &connectpluginv1.HandshakeRequest{
		CoreProtocolVersion: 1, AppProtocolVersion: 1, SelfId: selfID, SelfVersion: "1.0.0",
		MagicCookieKey: connectplugin.DefaultMagicCookieKey, MagicCookieValue: connectplugin.DefaultMagicCookieValue,
	}
}

// HandshakeClient calls the handshake of a host without a certificate.
func HandshakeClient(t *testing.T, host *Host) connectpluginv1connect.HandshakeServiceClient {
	t.Helper()
	return connectpluginv1connect.NewHandshakeServiceClient(host.Stranger(t), host.URL)
}

// WithCredentials puts an identity on a request.
func WithCredentials[T any](msg *T, runtimeID, token string) *connect.Request[T] {
	req := connect.NewRequest(msg)
	req.Header().Set("X-Plugin-Runtime-ID", runtimeID)
	req.Header().Set("Authorization", "Bearer "+token)
	return req
}

// ReportAs reports health with credentials over a client without a certificate and
// returns the code, zero for success.
func ReportAs(t *testing.T, host *Host, runtimeID, token string) connect.Code {
	t.Helper()
	return ReportWith(t, host.Stranger(t), host.URL, runtimeID, token)
}

// ReportWith does the same over any client.
func ReportWith(t *testing.T, client *http.Client, base, runtimeID, token string) connect.Code {
	t.Helper()
	_, err := connectpluginv1connect.NewPluginLifecycleClient(client, base).ReportHealth(t.Context(),
		WithCredentials(&connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY}, runtimeID, token))
	return CodeOrZero(err)
}

// EnrolOnce makes a client, connects it once and closes it.
func EnrolOnce(ctx context.Context, cfg connectplugin.ClientConfig) (runtimeID string, err error) {
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	err = c.Connect(ctx)
	return c.RuntimeID(), err
}

// IdentityHeader is what a caller sends to prove who it is.
func IdentityHeader(runtimeID, token string) http.Header {
	return http.Header{"X-Plugin-Runtime-Id": {runtimeID}, "Authorization": {"Bearer " + token}}
}
