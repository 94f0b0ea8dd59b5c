package platform_test

import (
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A plugin that is adopted again, the same process at the same endpoint, loses no call: neither one that is in flight nor those
// that come meanwhile. What it was before has ended when AddPlugin returns; where the context of that ends sooner, a moment later.
func TestAudit_H54_APluginAdoptedAgainLosesNoCall(t *testing.T) {
	t.Parallel()
	for name, short := range map[string]bool{"it waits": false, "its context ends": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startForAdoption(t)
			url, begun, goes := holdingFirst(t, h)
			p := h.Platform()
			if err := p.AddPlugin(t.Context(), adoption(url)); err != nil {
				t.Fatal(err)
			}
			call, first := userCall(t, h), p.Instances()[0].RuntimeID
			inFlight, added := make(chan error, 1), make(chan error, 1)
			go func() { inFlight <- call() }()
			<-begun
			ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
			defer cancel()
			go func() { added <- p.AddPlugin(ctx, adoption(url+"/")) }()
			there := func(i connectplugin.PluginStatus) bool { return i.RuntimeID == first && i.Endpoint != "" }
			hosttest.Eventually(t, "the endpoint is the new identity's", func() bool {
				providers := h.Registry().GetAllProviders("echo")
				return len(providers) == 1 && providers[0].RuntimeID != first && !slices.ContainsFunc(h.Plugins(), there)
			})
			for range 10 {
				if err := call(); err != nil {
					t.Errorf("while another is in flight: %v", err)
				}
			}
			if short {
				cancel()
				if err := <-added; err != nil {
					t.Errorf("AddPlugin: %v", err)
				}
			}
			close(goes)
			if err := <-inFlight; err != nil {
				t.Errorf("the call in flight: %v", err)
			}
			if !short {
				if err := <-added; err != nil {
					t.Errorf("AddPlugin: %v", err)
				}
				if all := p.Instances(); len(all) != 1 || all[0].RuntimeID == first {
					t.Errorf("instances %+v", all)
				}
			}
			hosttest.Eventually(t, "it is one plugin", func() bool { return len(p.Instances()) == 1 && p.Instances()[0].RuntimeID != first })
		})
	}
}

// holdingFirst is a sidecar whose first call goes on when it may: begun is closed when that has come.
func holdingFirst(t *testing.T, h *hosttest.Host) (url string, begun, goes chan struct{}) {
	t.Helper()
	begun, goes = make(chan struct{}), make(chan struct{})
	return sidecar(t, h, "echo", func(c *connectplugin.PluginServerConfig) {
		say := c.Services[0].Handler
		var first atomic.Bool
		c.Services[0].Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if first.CompareAndSwap(false, true) {
				close(begun)
				<-goes
			}
			say.ServeHTTP(w, r)
		})
	}), begun, goes
}
