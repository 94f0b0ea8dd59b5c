package client_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// overheard keeps the credentials of all requests that come to a host.
type overheard struct {
	host http.Handler

	mu    sync.Mutex
	shown map[string]string // procedures by bearer
}

// ServeHTTP implements http.Handler.
func (o *overheard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.shown[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")] = r.URL.Path
	o.mu.Unlock()
	o.host.ServeHTTP(w, r)
}

// A host to which a client moves is shown nothing that the one before gave: no token and no grant, in calls, in the renewal, and by
// what watches and reports beside.
func TestDiscovery_TheNextHostIsShownNoTokenOfTheFormer(t *testing.T) {
	t.Parallel()
	for name, foreign := range map[string]bool{"its own connections": false, "a foreign HTTP client": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := echo.StartKindsHost(t, nil)
			second := echo.StartKindsHost(t, func(c *connectplugin.ServeConfig) {
				c.Authority, c.Hosts = first.Authority, []string{"127.0.0.1"}
			})
			spy := &overheard{host: second.Handler(), shown: map[string]string{}}
			at := mountBelow(t, first.Authority, map[string]http.Handler{"": spy})
			d := connectplugin.NewStaticDiscovery(map[string][]connectplugin.Endpoint{"plugin-host": {{URL: first.URL}}})
			c := discovering(t, first.Host, d, foreign)
			made, _ := makeAll(t, c)
			reachAll(t, made, "before")
			token, id := c.RuntimeToken(), c.RuntimeID()
			d.RemoveService("plugin-host")
			d.AddEndpoint("plugin-host", connectplugin.Endpoint{URL: at})
			if err := first.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			hosttest.Eventually(t, "it has an identity at the next host", func() bool {
				if foreign { // whose connections tell nobody that they are lost
					_ = c.Connect(t.Context())
				}
				return echo.CallUnary(t.Context(), made["host plugin"], nil, nil).Err == nil && c.RuntimeID() != id
			})
			reachAll(t, made, "after")
			spy.mu.Lock()
			defer spy.mu.Unlock()
			if where, leaked := spy.shown[token]; leaked {
				t.Errorf("the next host was shown the token of the former one, by a call of %s", where)
			}
			if len(spy.shown) < 2 {
				t.Errorf("%d credentials were shown, want those of the next host", len(spy.shown))
			}
		})
	}
}
