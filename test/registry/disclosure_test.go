package registry_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// contentTypes are those of a unary and of a streaming request in each protocol.
var contentTypes = map[string][2]string{
	"connect":  {"application/proto", "application/connect+proto"},
	"grpc":     {"application/grpc+proto", "application/grpc+proto"},
	"grpc-web": {"application/grpc-web+proto", "application/grpc-web+proto"},
}

// answer is everything that a peer sees of an answer.
type answer struct {
	status  int
	header  string
	body    string
	trailer string
}

// post sends a message as a client of a protocol does and returns all of the
// answer but the date.
func post(t testing.TB, client connect.HTTPClient, url, contentType string, msg proto.Message) answer {
	t.Helper()
	raw, err := proto.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "application/proto" {
		raw = append([]byte{0, 0, 0, byte(len(raw) >> 8), byte(len(raw))}, raw...)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Te", "trailers")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	resp.Header.Del("Date")
	return answer{resp.StatusCode, text(resp.Header), string(body), text(resp.Trailer)}
}

func text(h http.Header) string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		lines = append(lines, fmt.Sprintf("%s: %q", name, h[name]))
	}
	return strings.Join(lines, "\n")
}

// hidden is a host whose plugin "c" may use type "mine" and nothing else, and on
// which "secret" is provided and "mine" is not.
func hidden(t testing.TB) (host *hosttest.Host, c *connectplugin.Client, provider string) {
	t.Helper()
	host = hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"p": {{"secret"}, nil}, "c": {nil, {"mine", "undeclared"}}})))
	s := &hosttest.Streamer{}
	p := host.StartPlugin(t, "p", func(cfg *connectplugin.PluginServerConfig) {
		cfg.Services = []connectplugin.PluginService{s.Service("secret")}
	})
	client := host.Enrol(t, "c", hosttest.Declaring(nil, []string{"mine", "secret"}))
	return host, client, p.Client.RuntimeID()
}

// A type that the caller may not use gets the same answer whether somebody provides it or
// not, byte by byte, from every door. One that it may use and that nobody provides is
// unavailable.
func TestAudit_REG3_ForbiddenAndUnknownLookAlike(t *testing.T) {
	t.Parallel()
	host, c, provider := hidden(t)
	for dialect, types := range contentTypes {
		seen := map[string]map[string]answer{"discover": {}, "watch, closed": {}, "route": {}}
		for _, name := range []string{"mine", "secret", "nothing", "undeclared"} {
			seen["discover"][name] = post(t, c.HTTPClient(), host.URL+connectpluginv1connect.ServiceRegistryDiscoverServiceProcedure,
				types[0], &connectpluginv1.DiscoverServiceRequest{ServiceType: name})
			if name != "mine" { // that one may be watched
				seen["watch, closed"][name] = post(t, c.HTTPClient(), host.URL+connectpluginv1connect.ServiceRegistryWatchServiceProcedure,
					types[1], &connectpluginv1.WatchServiceRequest{ServiceType: name})
			}
			for _, at := range []string{provider, "nobody-1234"} {
				seen["route"][name+" at "+at] = post(t, c.HTTPClient(),
					host.URL+"/services/"+name+"/"+at+"/"+name+connectpluginv1connect.HealthServiceCheckProcedure,
					types[0], &connectpluginv1.HealthCheckRequest{})
			}
		}
		for door, answers := range seen {
			maps.DeleteFunc(answers, func(name string, a answer) bool {
				own := name == "mine" || strings.HasPrefix(name, "mine at ")
				if said := a.body + a.header + a.trailer; own && !strings.Contains(said, `"unavailable"`) &&
					!strings.Contains(said, `Grpc-Status: ["14"]`) && !strings.Contains(said, "grpc-status: 14") {
					t.Errorf("%s over %s: %s: %+v does not say unavailable", door, dialect, name, a)
				}
				return own
			})
			var first answer
			for i, name := range slices.Sorted(maps.Keys(answers)) {
				if i == 0 {
					first = answers[name]
				}
				if answers[name] != first {
					t.Errorf("%s over %s: %s is answered with %+v and another with %+v", door, dialect, name, answers[name], first)
				}
			}
			said := first.body + first.header + first.trailer
			if !strings.Contains(said, "not_found") && !strings.Contains(said, `Grpc-Status: ["5"]`) && !strings.Contains(said, "grpc-status: 5") {
				t.Errorf("%s over %s: %+v does not say not_found", door, dialect, first)
			}
		}
	}
	if !host.Audit.Has(connectplugin.AuditDenied) {
		t.Error("nothing was audited")
	}
}

// The watch of a forbidden type ends at once, where that of an allowed one that
// nobody provides waits.
func TestAudit_REG3_ForbiddenWatchEndsAtOnce(t *testing.T) {
	t.Parallel()
	host, c, _ := hidden(t)
	for dialect, opts := range hosttest.Protocols {
		for _, name := range []string{"secret", "nothing", "undeclared"} {
			w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: name}, opts...)
			if code := w.Code(hosttest.Wait); code != connect.CodeNotFound || len(w.Events) > 0 {
				t.Errorf("watch of %s over %s: %v after %d events", name, dialect, code, len(w.Events))
			}
		}
		w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "mine"}, opts...)
		if e := w.Next(t); e.GetState() != hosttest.Unavailable || w.Code(0) != 0 {
			t.Errorf("watch of what is allowed over %s: %v, %v", dialect, e, w.Code(0))
		}
	}
}

// A caller discovers, watches and routes what it declared and policy allows.
func TestAudit_REG3_DeclaredAndAllowedCanBeUsed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		declared, allowed []string
		ok                bool
	}{
		"declared and allowed": {[]string{"a"}, []string{"a"}, true},
		"everything allowed":   {[]string{"a"}, []string{"*"}, true},
		"not declared":         {[]string{"b"}, []string{"*"}, false},
		"not allowed":          {[]string{"a"}, []string{"b"}, false},
		"nothing declared":     {nil, []string{"a"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, c.allowed}})))
			s := &hosttest.Streamer{}
			p := host.StartPlugin(t, "p", func(cfg *connectplugin.PluginServerConfig) {
				cfg.Services = []connectplugin.PluginService{s.Service("a")}
			})
			client := host.Enrol(t, "c", hosttest.Declaring(nil, c.declared))
			_, err := hosttest.Discover(t, client, "a", "")
			outcomes := map[string]connect.Code{"discover": hosttest.CodeOrZero(err)}
			w := hosttest.Watch(t, client, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
			select {
			case <-w.Events:
			case err := <-w.End:
				outcomes["watch"] = connect.CodeOf(err)
			}
			_, err = connectpluginv1connect.NewHealthServiceClient(client.HTTPClient(), host.URL+"/services/a/"+p.Client.RuntimeID()+"/a").
				Check(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
			if outcomes["route"] = hosttest.CodeOrZero(err); c.ok && outcomes["route"] == connect.CodeUnimplemented {
				outcomes["route"] = 0 // the provider's own answer
			}
			want := connect.CodeNotFound
			if c.ok {
				want = 0
			}
			for door, code := range outcomes {
				if code != want {
					t.Errorf("%s: %v, want %v", door, code, want)
				}
			}
		})
	}
}

// What errors say to peers is one of a few constants and names nobody.
func TestAudit_REG9_ErrorsTellNothing(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
		cfg.Policy = hosttest.Rights(map[string][2][]string{"owner": {{"a", "b"}, nil}, "rival": {{"a"}, nil}, "c": {nil, {"a", "b"}}})
		cfg.Limits.MaxWatchesPerPlugin = 1
	})
	owner, rival, c := host.Enrol(t, "owner", hosttest.Providing("a", "b", "c")), host.Enrol(t, "rival", hosttest.Providing("a")), host.Enrol(t, "c", hosttest.Requiring("a", "b"))
	id, err := hosttest.Register(t, owner, "a", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := hosttest.RegisterWith(t, owner, &connectpluginv1.RegisterServiceRequest{ServiceType: "b", Version: "1.0.0", Metadata: map[string]string{"base_url": "https://127.0.0.1:1"}}); err != nil {
		t.Fatal(err)
	}
	hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"}).Next(t)
	stranger := connectpluginv1connect.NewServiceRegistryClient(host.Stranger(t), host.URL)
	errs := map[string]error{
		"conflict":          hosttest.ErrorOf(hosttest.Register(t, rival, "a", "1.0.0")),
		"denied":            hosttest.ErrorOf(hosttest.Register(t, owner, "c", "1.0.0")),
		"foreign":           hosttest.Unregister(t, rival, id),
		"forbidden":         hosttest.ErrorOf(hosttest.Discover(t, rival, "a", "")),
		"no such version":   hosttest.ErrorOf(hosttest.Discover(t, c, "a", "9.0.0")),
		"too many watches":  <-hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "b"}).End,
		"foreign base_url":  hosttest.RegisterWith(t, owner, &connectpluginv1.RegisterServiceRequest{ServiceType: "b", Version: "1.0.0", Metadata: map[string]string{"base_url": "https://192.0.2.1:1"}}),
		"provider away":     hosttest.ErrorOf(connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), host.URL+"/services/b/"+owner.RuntimeID()).Check(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))),
		"no such provider":  hosttest.ErrorOf(connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), host.URL+"/services/a/"+rival.RuntimeID()).Check(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))),
		"not authenticated": hosttest.ErrorOf(stranger.DiscoverService(t.Context(), hosttest.WithCredentials(&connectpluginv1.DiscoverServiceRequest{ServiceType: "a"}, owner.RuntimeID(), "wrong"))),
	}
	constants := regexp.MustCompile(`^(not_found: not available|unavailable: not available|permission_denied: permission denied|already_exists: another plugin provides the service type|resource_exhausted: too many (requests|open watches)|unauthenticated: unauthenticated)$`)
	for name, err := range errs {
		if err == nil || !constants.MatchString(err.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The operator learns what the peers do not.
	var reasons []string
	for _, e := range host.Audit.Events() {
		reasons = append(reasons, string(e.Kind)+" "+e.SelfID+" "+e.Subject+" "+e.Reason)
		if strings.HasPrefix(e.Reason, "base_url") && e.Right != "" {
			t.Errorf("the event is of the right %s, which the plugin has: %v", e.Right, e)
		}
	}
	for _, want := range []string{"conflict rival a", "denied owner c not allowed by policy", `denied owner b base_url names another address than 127.0.0.1, from which the plugin registers: set BaseURL of the plugin to that address, or Policy.Plugins["owner"].Endpoint`} {
		if !slices.ContainsFunc(reasons, func(r string) bool { return strings.HasPrefix(r, want) }) {
			t.Errorf("audit misses %q in %q", want, reasons)
		}
	}
}

// BenchmarkForbiddenAndUnknown measures, over TLS, how long the refusal takes of a
// type that somebody provides and the caller may not use, of one that it may not
// use and nobody provides, and of one that it may use and nobody provides. The
// first two take the same way through the host; the third differs from them by
// what the host records.
func BenchmarkForbiddenAndUnknown(b *testing.B) {
	host := hosttest.Start(b, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"secret"}, nil}, "c": {nil, {"mine"}}})
		c.Logger, c.Audit = nil, func(connectplugin.AuditEvent) {}
		c.Limits.RequestsPerSecond, c.Limits.RequestBurst = 1e6, 1e6
	})
	p, c := host.Enrol(b, "p", hosttest.Providing("secret")), host.Enrol(b, "c", hosttest.Requiring("mine", "secret", "nothing"))
	if err := hosttest.RegisterWith(b, p, &connectpluginv1.RegisterServiceRequest{ServiceType: "secret", Version: "1.0.0"}); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"secret", "nothing", "mine"} {
		b.Run(name, func(b *testing.B) {
			req := connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: name})
			want := connect.CodeNotFound
			if name == "mine" {
				want = connect.CodeUnavailable
			}
			for b.Loop() {
				if _, err := c.RegistryClient().DiscoverService(b.Context(), req); connect.CodeOf(err) != want {
					b.Fatal(err)
				}
			}
		})
	}
}
