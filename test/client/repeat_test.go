package client_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// odd passes for a host, a millisecond away, in memory.
type odd struct {
	lease string // that it states, empty for none

	mu      sync.Mutex
	refuses bool             // the identities that it gives
	forgets string           // the last part of the path of the calls that it refuses, and takes others
	fails   bool             // every call
	asked   map[string]int64 // by the last part of the path
}

// Do implements connect.HTTPClient.
func (h *odd) Do(r *http.Request) (*http.Response, error) {
	t := time.NewTimer(time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked[name]++
	resp := &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{}, Request: r, Body: http.NoBody}
	switch {
	case name == "Handshake":
		if h.lease != "" {
			resp.Header.Set("X-Plugin-Lease", h.lease)
		}
		return message(resp, hosttest.Welcome(func(m *connectpluginv1.HandshakeResponse) {
			m.RuntimeId = fmt.Sprintf("api-%026d", h.asked[name])
		})), nil
	case h.fails:
		return nil, errors.New("no route to host")
	case h.refuses, h.forgets == name:
		resp.StatusCode = http.StatusUnauthorized
		resp.Header.Set("Www-Authenticate", "Bearer")
		return resp, nil
	case name == "WatchService":
		event, _ := proto.Marshal(&connectpluginv1.WatchServiceEvent{
			ServiceType: "store", State: connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE, Sequence: uint64(h.asked[name]), Epoch: "e",
		})
		resp.Header.Set("Content-Type", "application/connect+proto")
		resp.Body = io.NopCloser(bytes.NewReader(append(envelope(0, event), envelope(2, []byte("{}"))...)))
		return resp, nil
	}
	return message(resp, &connectpluginv1.ReportHealthResponse{}), nil
}

func message(resp *http.Response, m proto.Message) *http.Response {
	body, _ := proto.Marshal(m)
	resp.Header.Set("Content-Type", "application/proto")
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp
}

func envelope(flags byte, m []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(m))), m...)
}

func (h *odd) count(name string) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked[name]
}

func (h *odd) set(refuses, fails bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuses, h.fails = refuses, fails
}

// client makes a connected client of it.
func (h *odd) client(t *testing.T) *connectplugin.Client {
	t.Helper()
	return connected(t, h, h)
}

// connected makes a client that is connected to a host, which is odd in this way.
func connected(t *testing.T, host connect.HTTPClient, h *odd) *connectplugin.Client {
	t.Helper()
	h.asked = map[string]int64{}
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: "https://host.example", SelfID: "api", HTTPClient: host, Logger: hosttest.Logger(t),
		ProtocolVersion: 2, Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("store")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// watch follows a type until the test ends.
func watch(t *testing.T, c *connectplugin.Client) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range c.WatchService(t.Context(), "store") {
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
}

// Whatever a host does again and again, its client does not do something at once each time:
// the lease that it states may be as short as it likes.
func TestAudit_OWN24_AShortLeaseIsNoHurry(t *testing.T) {
	t.Parallel()
	for _, lease := range []string{"1ns", "1ms", "-1s", "3s"} {
		for _, fails := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				h := &odd{lease: lease}
				h.client(t)
				h.set(false, fails)
				time.Sleep(10 * time.Second)
				n := h.count("ReportHealth")
				if n > 100 || lease == "3s" && n < 5 || lease == "-1s" && n > 0 {
					t.Errorf("lease %s, fails %t: %d reports in 10 s", lease, fails, n)
				}
			})
		}
	}
}

// A host that ends each watch is not asked again at once each time, even where it says
// something before.
func TestAudit_OWN24_WatchesThatEndAreNotRepeatedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &odd{}
		watch(t, h.client(t))
		time.Sleep(10 * time.Second)
		if n := h.count("WatchService"); n < 5 || n > 30 {
			t.Errorf("%d watches in 10 s", n)
		}
	})
}

// A host that forgets each identity at once, as two behind one URL do, is asked for others
// with growing delays, and calls say what is wrong; when it keeps them, all is well at once.
func TestAudit_OWN24_IdentitiesThatAreForgottenAreNotRepeatedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &odd{}
		c := h.client(t)
		h.set(true, false)
		watch(t, c)
		time.Sleep(10 * time.Second)
		if n := h.count("Handshake"); n < 5 || n > 30 {
			t.Errorf("%d handshakes in 10 s", n)
		}
		before := h.count("Handshake")
		for range 50 {
			err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
			if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "several hosts") {
				t.Fatalf("a call: %v", err)
			}
		}
		if n := h.count("Handshake") - before; n > 1 {
			t.Errorf("%d handshakes for 50 calls", n)
		}
		h.set(false, false)
		time.Sleep(5 * time.Second)
		if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
			t.Errorf("when the host keeps identities: %v", err)
		}
	})
}

// A host that takes some calls with an identity and refuses others, as one of two that share a balancer does by request,
// is not asked for another identity at once each time, and the log of its client has a few lines of it.
func TestAudit_OWN24_IdentitiesThatAreTakenAndForgottenAreNotRepeatedAtOnce(t *testing.T) {
	t.Parallel()
	for _, forgotten := range []string{"ReportHealth", "RegisterService"} {
		synctest.Test(t, func(t *testing.T) {
			h := &odd{}
			c := h.client(t)
			h.mu.Lock()
			h.forgets = forgotten
			h.mu.Unlock()
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				_, _ = c.RegistryClient().RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{}))
				_ = c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
			}
			if n := h.count("Handshake"); n < 5 || n > 40 {
				t.Errorf("%d handshakes in 20 s of a host that takes all but %s", n, forgotten)
			}
			h.mu.Lock()
			h.forgets = ""
			h.mu.Unlock()
			time.Sleep(5 * time.Second)
			if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
				t.Errorf("when the host keeps identities: %v", err)
			}
		})
	}
}
