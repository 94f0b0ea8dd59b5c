package client_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// lives is a host that is started anew, as a plugin sees it, and says what the test has it say to each of its watches.
type lives struct {
	odd

	begun, resumed chan *feed // watches, and those that ask for what they missed

	said   sync.Mutex
	health connectpluginv1.HealthState // that the plugin reported last
}

// Do implements connect.HTTPClient.
func (h *lives) Do(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/ReportHealth"):
		var report connectpluginv1.ReportHealthRequest
		if err := proto.Unmarshal(body, &report); err != nil {
			return nil, err
		}
		h.said.Lock()
		defer h.said.Unlock()
		h.health = report.GetState()
	case strings.HasSuffix(r.URL.Path, "/WatchService"):
		var asks connectpluginv1.WatchServiceRequest
		if err := proto.Unmarshal(body[len(envelope(0, nil)):], &asks); err != nil {
			return nil, err
		}
		f, resp := watched(r)
		if asks.GetEpoch() != "" {
			h.resumed <- f
		} else {
			h.begun <- f
		}
		return resp, nil
	}
	return h.odd.Do(r)
}

func (h *lives) reported() connectpluginv1.HealthState {
	h.said.Lock()
	defer h.said.Unlock()
	return h.health
}

// A plugin that waits for a service while its host is started anew is healthy again once it can call that, and not before: each life
// of a host numbers its states from the beginning.
func TestServePlugin_IsHealthyOnceItCanCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &lives{odd: odd{asked: map[string]int64{}}, begun: make(chan *feed, 2), resumed: make(chan *feed, 2)}
		ctx, end := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer end()
		running.Go(func() {
			if err := connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
				Listener: &nobodyKnocks{done: make(chan struct{})},
				Services: []connectplugin.PluginService{{Type: "own", Version: "1.0.0", Path: "/own/", Handler: http.NotFoundHandler()}},
				Client: connectplugin.ClientConfig{
					HostURL: "http://127.0.0.1", SelfID: "api", HTTPClient: h, AllowInsecure: true, ProtocolVersion: 2, Logger: hosttest.Logger(t),
					Metadata: connectplugin.PluginMetadata{
						Provides: hosttest.Provides("own"), Requires: []connectplugin.ServiceDependency{{Type: "store", WatchForChanges: true}},
					},
				},
				OnConnected: func(ctx context.Context, c *connectplugin.Client) error {
					running.Go(func() { _, _ = c.Service(ctx, "store", "") })
					return nil
				},
			}); err != nil {
				t.Error(err)
			}
		})
		for _, f := range []*feed{<-h.begun, <-h.begun} {
			f.says(t, unavailable, "e", 57)
			_ = f.CloseWithError(io.ErrUnexpectedEOF)
		}
		own, conn := <-h.resumed, <-h.begun
		time.Sleep(300 * time.Millisecond)
		if got := h.reported(); got != connectpluginv1.HealthState_HEALTH_STATE_DEGRADED {
			t.Errorf("without what it watches for it is %s", got)
		}
		own.says(t, available, "f", 1)
		time.Sleep(300 * time.Millisecond)
		if got := h.reported(); got != connectpluginv1.HealthState_HEALTH_STATE_DEGRADED {
			t.Errorf("before it can call the service it is %s", got)
		}
		conn.says(t, available, "f", 1)
		time.Sleep(300 * time.Millisecond)
		if got := h.reported(); got != connectpluginv1.HealthState_HEALTH_STATE_HEALTHY {
			t.Errorf("when it can, it is %s", got)
		}
	})
}
