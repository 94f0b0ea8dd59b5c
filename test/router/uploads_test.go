package router_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// TestAudit_USE05_AnUploadNobodyReadsLeavesRoomOnItsConnection has one connection carry an upload to
// a handler that does not read, and then another one.
func TestAudit_USE05_AnUploadNobodyReadsLeavesRoomOnItsConnection(t *testing.T) {
	t.Parallel()
	stalled, stop := make(chan struct{}), make(chan struct{})
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	plugin := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{{
			Type: "logger", Version: "1.0.0", Path: "/raw.v1.Raw/", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Stay") != "" {
					stalled <- struct{}{}
					<-stop
					return
				}
				n, _ := io.Copy(io.Discard, r.Body)
				_, _ = w.Write(make([]byte, n))
			}),
		}}
	})
	defer close(stop)
	caller := host.Enrol(t, "api", hosttest.Requiring("logger"))
	client := hosttest.HTTPClient(t, host.StrangerTLS())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	post := func(stay string, size int) (*http.Response, error) {
		target := host.URL + "/services/logger/" + plugin.Client.RuntimeID() + "/raw.v1.Raw/Call"
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(make([]byte, size)))
		if err != nil {
			return nil, err
		}
		r.Header = hosttest.IdentityHeader(caller.RuntimeID(), caller.RuntimeToken())
		r.Header.Set("Content-Type", "application/proto")
		if stay != "" {
			r.Header.Set("X-Stay", stay)
		}
		return client.Do(r)
	}
	for range 2 {
		go func() {
			if resp, err := post("1", 4<<20); err == nil {
				_ = resp.Body.Close()
			}
		}()
		<-stalled
	}
	const size = 600 << 10 // more than goes along with the head
	resp, err := post("", size)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
