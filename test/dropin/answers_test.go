package dropin_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// firstPeer answers as a host and a plugin of the first version did, over HTTP/1.1.
type firstPeer struct {
	t       *testing.T
	url     string
	files   *protoregistry.Files
	answers map[string]exchange // fixed at creation

	mu    sync.Mutex
	asked map[string]bool
}

func newFirstPeer(t *testing.T) *firstPeer {
	t.Helper()
	p := &firstPeer{t: t, files: firstVersion(t), answers: map[string]exchange{}, asked: map[string]bool{}}
	for _, e := range recordings(t, "to_client.txt") {
		p.answers["/"+e.rpc] = e
	}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *firstPeer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == "PRI" { // today's peer asks whether this is HTTP/2 (RFC 9113, 3.4)
		http.NotFound(w, r)
		return
	}
	e, ok := p.answers[r.URL.Path]
	raw, err := io.ReadAll(r.Body)
	if !ok || err != nil || r.ProtoMajor != 1 {
		p.t.Errorf("%s %s: %v", r.Proto, r.URL.Path, err)
		http.NotFound(w, r)
		return
	}
	p.mu.Lock()
	p.asked[r.URL.Path] = true
	p.mu.Unlock()
	if e.stream {
		raw = raw[5:]
	}
	got := understood(p.t, method(p.t, p.files, e.rpc).Input(), "proto", raw)
	if want := object(p.t, e.fields["reads"]); !p.known().learn(want, got) {
		p.t.Errorf("%s: today's peer says %v, want %v", e.rpc, got, want)
	}
	answer := bytesOf(p.t, p.known().fill(e.fields["proto"]))
	if e.stream {
		answer = append(enveloped(0, answer), enveloped(2, []byte("{}"))...)
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = w.Write(answer)
}

// known are the values of names in a recording.
func (p *firstPeer) known() known { return known{"HOST": p.url} }

// Clients of today understand what hosts and plugins of the first version answer, and are understood.
func TestReplay_ToClient(t *testing.T) {
	t.Parallel()
	p := newFirstPeer(t)
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{HostURL: p.url, SelfID: "app", SelfVersion: "1.0.0", AllowInsecure: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Connect(t.Context()); err != nil || c.RuntimeID() != "app-x7k2" || c.RuntimeToken() == "" {
		t.Fatalf("Connect: %q, %v", c.RuntimeID(), err)
	}
	useRegistry(t, p, c)
	useHost(t, p, c)
	usePlugin(t, p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) != len(p.answers) {
		t.Errorf("asked were %v", slices.Sorted(maps.Keys(p.asked)))
	}
}

// useRegistry calls the registry, whose client is the generated one.
func useRegistry(t *testing.T, p *firstPeer, c *connectplugin.Client) {
	t.Helper()
	r := c.RegistryClient()
	registered, err := r.RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: "app", Version: "1.0.0", EndpointPath: "/app.v1.App/",
	}))
	compare(t, p, "connectplugin.v1.ServiceRegistry/RegisterService", registered, err)
	found, err := r.DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{
		ServiceType: "logger", MinVersion: "1.0.0",
	}))
	compare(t, p, "connectplugin.v1.ServiceRegistry/DiscoverService", found, err)
	gone, err := r.UnregisterService(t.Context(), connect.NewRequest(&connectpluginv1.UnregisterServiceRequest{RegistrationId: "reg-1"}))
	compare(t, p, "connectplugin.v1.ServiceRegistry/UnregisterService", gone, err)
}

// compare compares what a generated client understood with the recording's other form.
func compare[T any](t *testing.T, p *firstPeer, rpc string, got *connect.Response[T], err error) {
	t.Helper()
	if err != nil {
		t.Error(rpc, err)
		return
	}
	text, err := protojson.Marshal(any(got.Msg).(proto.Message))
	if err != nil {
		t.Fatal(err)
	}
	if want := object(t, p.known().fill(p.answers["/"+rpc].fields["json"])); !reflect.DeepEqual(object(t, string(text)), want) {
		t.Errorf("%s: understood is %s, want %v", rpc, text, want)
	}
}

// useHost does what Client itself does with a host.
func useHost(t *testing.T, p *firstPeer, c *connectplugin.Client) {
	t.Helper()
	if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, "slow", []string{"storage"}); err != nil {
		t.Error(err)
	}
	for event, err := range c.WatchService(t.Context(), "logger") {
		if err != nil || event.State != connectpluginv1.ServiceState_SERVICE_STATE_DEGRADED || event.ProviderID != "logger-a1b2" ||
			event.Version != "1.2.0" || event.EndpointURL != "/services/logger/logger-a1b2" {
			t.Errorf("watch: %+v, %v", event, err)
		}
		break
	}
	grant, err := c.Capability(t.Context(), "logger", "1.0.0")
	if err != nil {
		t.Fatal("Capability:", err)
	}
	if !strings.HasPrefix(grant.BaseURL(), p.url) {
		t.Errorf("the capability is at %s", grant.BaseURL())
	}
}

// usePlugin calls a plugin, as a host does.
func usePlugin(t *testing.T, p *firstPeer) {
	t.Helper()
	control := connectplugin.NewPluginControlClient(p.url, plain(t, false))
	health, err := control.GetHealth(t.Context())
	compare(t, p, "connectplugin.v1.PluginControl/GetHealth", connect.NewResponse(health), err)
	if ok, err := control.Shutdown(t.Context(), 5, "upgrade"); !ok || err != nil {
		t.Errorf("Shutdown: %t, %v", ok, err)
	}
	identity := connectplugin.NewPluginIdentityClient(p.url, plain(t, false))
	info, err := identity.GetPluginInfo(t.Context())
	compare(t, p, "connectplugin.v1.PluginIdentity/GetPluginInfo", connect.NewResponse(info), err)
	if err := identity.SetRuntimeIdentity(t.Context(), "old-x7k2", "dG9rZW4tb2YtdGhlLWZpcnN0LXZlcnNpb24", p.url); err != nil {
		t.Error("SetRuntimeIdentity:", err)
	}
}
