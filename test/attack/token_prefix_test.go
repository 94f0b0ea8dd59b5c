package attack_test

import (
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A token is one, however a provider's header is written.
func TestAudit_ATK02_TokensBehindAnyPrefixAreNotShown(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"key=", "Token:", "k_", "id-"} {
		shown := make(chan string, 1000)
		auth := connectplugin.NewTokenAuth("", func(token string) (string, map[string]string, error) {
			shown <- token
			return "anybody", nil, nil
		})
		auth.Header, auth.Prefix = "X-Key", prefix
		host := startNamesHost(t, policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": unproven}), offersEcho(&echo{}, auth))
		bare := hosttest.HTTPClient(t, host.ca.TLS(nil))
		resp, err := connectpluginv1connect.NewHandshakeServiceClient(bare, host.URL).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("storage")))
		if err != nil {
			t.Fatal(err)
		}
		token := resp.Msg.GetRuntimeToken()
		try := func(when string) {
			for _, value := range []string{prefix + token, prefix + token + "; path=/", prefix + "x, " + token, prefix + token + ".x"} {
				header := withHeader{bare, http.Header{"X-Key": {value}}}
				wantRefused(t, when+", "+prefix, callEcho(t.Context(), header, host.URL), connect.CodeUnauthenticated)
			}
		}
		try("while it lives")
		host.Revoke(resp.Msg.GetRuntimeId())
		try("revoked")
		if len(shown) != 0 {
			t.Errorf("%s: the provider was shown %d tokens", prefix, len(shown))
		}
		wantServed(t, "a stranger", callEcho(t.Context(), withHeader{bare, http.Header{"X-Key": {prefix + "something-else"}}}, host.URL))
	}
}
