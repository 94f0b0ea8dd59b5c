package platform_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// What a plugin answers its host is inflated nowhere, whatever the plugin says of it: an answer within its bound may stand
// for a thousand times as much.
func TestAudit_ATK04_AnswersToTheHostAreNotInflated(t *testing.T) {
	t.Parallel()
	bomb := hosttest.GzipOf(t, 32<<20) // less than an answer may have
	var asked atomic.Pointer[http.Header]
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(&r.Header)
		w.Header().Set("Content-Type", "application/proto")
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb)
	}))
	t.Cleanup(srv.Close)
	for name, ask := range map[string]func() error{
		"health": func() error {
			return hosttest.ErrorOf(connectplugin.NewPluginControlClient(srv.URL, srv.Client()).GetHealth(t.Context()))
		},
		"info": func() error {
			return hosttest.ErrorOf(connectplugin.NewPluginIdentityClient(srv.URL, srv.Client()).GetPluginInfo(t.Context()))
		},
	} {
		err := ask()
		if err == nil {
			t.Errorf("%s: it is taken", name)
		}
		if got := asked.Load().Get("Accept-Encoding"); got != "identity" {
			t.Errorf("%s: it asks for %q: %v", name, got, err)
		}
	}
}
