package connectplugin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// observedAuth collects what the audit sink of a host would get.
func observedAuth(ctx context.Context) (context.Context, *[]authFailure) {
	var seen []authFailure
	return withAuthObserver(ctx, func(_ context.Context, f authFailure) { seen = append(seen, f) }), &seen
}

// The chain for plain handlers decides as the one for RPCs does, and tells the
// host once, without the secret, what it tells nobody else.
func TestAudit_REGREC11_RefusalsAreObserved(t *testing.T) {
	t.Parallel()
	const secret = "pr3s3nted-s3cret"
	errTest := errors.New("unknown token " + secret + "!")
	token := NewTokenAuth("", func(token string) (string, map[string]string, error) {
		switch token {
		case "good":
			return "alice", nil, nil
		case "panic":
			panic(secret)
		default:
			return "", nil, errTest
		}
	})
	embedded := struct{ *TokenAuth }{token}
	tests := []struct {
		name      string
		providers []AuthProvider
		value     string
		provider  string
		reason    string // "" = accepted
	}{
		{"good", []AuthProvider{token}, "Bearer good", "", ""},
		{"good behind others", []AuthProvider{NewAPIKeyAuth("", nil), &MTLSAuth{}, token}, "Bearer good", "", ""},
		{"open", []AuthProvider{token, NoAuth()}, "", "", ""},
		{"refused", []AuthProvider{token, NoAuth()}, "Bearer " + secret, "token", "unknown token [redacted]!"},
		{"panicked", []AuthProvider{token}, "Bearer panic", "token", "the provider panicked with a string"},
		{"absent", []AuthProvider{token}, "", "", errNoCredential.Error()},
		{"other scheme", []AuthProvider{token}, "Basic " + secret, "", errNoCredential.Error()},
		{"malformed", []AuthProvider{token}, "Bearer " + secret + " x", "token", errTokenMalformed.Error()},
		{"empty chain", nil, "Bearer good", "", errNoProviders.Error()},
		{"nothing to compare with", []AuthProvider{NewAPIKeyAuth("", nil), NewTokenAuth("", nil)}, "Bearer x", "token", errNoToken.Error()},
		{"nil provider", []AuthProvider{token, nil}, "Bearer good", "", errNilProvider.Error()},
		{"chain in a chain", []AuthProvider{embedded}, "Bearer " + secret, "token", "unknown token [redacted]!"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, seen := observedAuth(t.Context())
			header := http.Header{}
			if tt.value != "" {
				header.Set("Authorization", tt.value)
			}
			spec, peer := connect.Spec{Procedure: "/p.v1.S/M"}, connect.Peer{Addr: "192.0.2.1:5"}
			_, err := newAuthChain(tt.providers).authenticate(ctx, newHeaderRequest(spec, peer, header))
			if tt.reason == "" {
				if err != nil || len(*seen) != 0 {
					t.Fatalf("got %v and %+v", err, *seen)
				}
				return
			}
			if connect.CodeOf(err) != connect.CodeUnauthenticated || !errors.Is(err, errUnauthenticated) {
				t.Fatalf("got %v", err)
			}
			if len(*seen) != 1 {
				t.Fatalf("observed %d times: %+v", len(*seen), *seen)
			}
			f := (*seen)[0]
			reason := f.Err.Error()
			f.Err = nil
			if want := (authFailure{Procedure: spec.Procedure, Peer: peer.Addr, Provider: tt.provider}); f != want || reason != tt.reason {
				t.Errorf("observed %+v and %q, want %+v and %q", f, reason, want, tt.reason)
			}
			if strings.Contains(reason, secret) {
				t.Errorf("the secret got out: %v", reason)
			}
		})
	}
}

func TestAuthenticateHeader_NamesTheSender(t *testing.T) {
	t.Parallel()
	header := http.Header{"Authorization": {"Bearer s"}}
	ctx, err := newAuthChain([]AuthProvider{NewTokenAuth("s", nil)}).authenticate(t.Context(), newHeaderRequest(connect.Spec{}, connect.Peer{}, header))
	if err != nil {
		t.Fatal(err)
	}
	if auth := GetAuthContext(ctx); auth == nil || auth.Identity != sharedIdentity || auth.Provider != tokenProvider {
		t.Errorf("got %+v", auth)
	}
}

// RequireAuth is observed too.
func TestRequireAuth_IsObserved(t *testing.T) {
	t.Parallel()
	ctx, seen := observedAuth(t.Context())
	next := func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { panic("ran") }
	_, err := RequireAuth()(next)(ctx, newHeaderRequest(connect.Spec{Procedure: "/p"}, connect.Peer{}, nil))
	if connect.CodeOf(err) != connect.CodeUnauthenticated || len(*seen) != 1 || (*seen)[0].Procedure != "/p" {
		t.Errorf("got %v, observed %+v", err, *seen)
	}
}

// Addresses are counted together by what one peer can choose of them.
func TestAddressKey(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"192.0.2.1:1234":                     "192.0.2.1",
		"192.0.2.1":                          "192.0.2.1",
		"[::ffff:192.0.2.1]:80":              "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80":          "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::]:443":          "2001:db8:1:2::/64",
		"2001:db8:1:3::1":                    "2001:db8:1:3::/64",
		"[fe80::1%eth0]:80":                  "fe80::/64",
		"[::1]:80":                           "::/64",
		"":                                   "local",
		"@":                                  "local",
		"pipe":                               "local",
		"/run/the-peer-chose-this.sock":      "local",
		"localhost:80":                       "local",
		"192.0.2.1:port":                     "local",
		"256.0.2.1:80":                       "local",
		"192.0.2.1, 198.51.100.1":            "local",
		"[2001:db8:1:2:3:4:5:6%25eth0]:port": "local",
	}
	for addr, want := range tests {
		if got := addressKey(addr); got != want {
			t.Errorf("%q: got %q, want %q", addr, got, want)
		}
	}
}

// A field without a default would allow nothing.
func TestLimits_EveryFieldHasADefault(t *testing.T) {
	t.Parallel()
	v := reflect.ValueOf(Limits{}.withDefaults())
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("Limits.%s has none", v.Type().Field(i).Name)
		}
	}
}

// Each launch has a certificate of its own: the set of those that were plugins', which would hold
// everybody for one once it is full, has none of the host's own authority.
func TestAudit_ATK17_LaunchesDoNotFillTheSetOfPlugins(t *testing.T) {
	t.Parallel()
	authority, err := NewAuthority(AuthorityConfig{TrustDomain: "test.example"})
	if err != nil {
		t.Fatal(err)
	}
	h := NewHandshakeServer(&ServeConfig{Authority: authority}).hub
	for identity, kept := range map[string]bool{
		"spiffe://test.example/launch/a": false, "spiffe://test.example/plugin/a": false,
		"spiffe://company.example/a": true, "spiffe://test.example/host": true, "name": true,
	} {
		cert := &certificate{identity: identity}
		h.remember(cert)
		if got := h.shown.Has(identity, certs.Pin{}); got != kept {
			t.Errorf("%s is kept: %v", identity, got)
		}
		if !h.isPlugin(h.rules.Load(), cert) {
			t.Errorf("%s is no plugin's", identity)
		}
	}
}

// What waits for something has no deadline, all else of the admin services has.
func TestQuickProcedure(t *testing.T) {
	t.Parallel()
	waits := []string{
		adminv1connect.AdminReadServiceFollowProcedure, adminv1connect.AdminChangeServiceDrainProcedure,
		adminv1connect.AdminChangeServiceReplaceProcedure, adminv1connect.AdminChangeServiceReloadPolicyProcedure,
	}
	for _, service := range []string{AdminRead, AdminChange} {
		methods := adminv1.File_admin_v1_admin_proto.Services().ByName(protoreflect.FullName(service).Name()).Methods()
		for i := range methods.Len() {
			path := "/" + service + "/" + string(methods.Get(i).Name())
			if quickProcedure(path) == slices.Contains(waits, path) {
				t.Errorf("%s is quick: %v", path, quickProcedure(path))
			}
		}
	}
}

// BenchmarkCallRecord is what the host does for an observer on a routed call, and no more: the
// record from its begin to its end and what of the answer the outcome reads, by the functions
// that a call runs. It takes many short rounds, so that what else the machine does meets few of
// them, and reports the quickest tenth and the median. It leaves out the locks that a provider in
// the host's process takes around the outcome; the whole of a call is BenchmarkObserver of test/observe.
func BenchmarkCallRecord(b *testing.B) {
	const batch = 200
	record := newRecordedCall(b)
	var rounds []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		begun := time.Now()
		for range batch {
			record()
		}
		rounds = append(rounds, time.Since(begun))
	}
	slices.Sort(rounds)
	b.ReportMetric(float64(rounds[len(rounds)/10])/batch, "ns/observed")
	b.ReportMetric(float64(rounds[len(rounds)/2])/batch, "ns/observed-median")
}

// What the host does for an observer on a routed call takes no allocation.
func TestCallRecord_AllocatesNothing(t *testing.T) { // not parallel: it counts what the whole process allocates
	record := newRecordedCall(t)
	record() // the name of the procedure is learned once
	if n := testing.AllocsPerRun(1000, record); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}

// newRecordedCall returns what does all that is done for an observer on one routed call.
func newRecordedCall(tb testing.TB) func() {
	tb.Helper()
	h := newHub((&ServeConfig{}).withDefaults().settings())
	tb.Cleanup(func() { h.callers.Close(); h.strangers.Close() })
	id, _, err := h.store.Issue(tokenstore.Request{SelfID: "caller"})
	if err != nil {
		tb.Fatal(err)
	}
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/services/kv/-/kv.v1.KV/Get", nil)
	r.Header.Set("Content-Type", "application/proto")
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	began := time.Now() // which a call reads anyway, as it does when the provider's part begins
	call := &routedCall{caller: &caller{id: id, hub: h, came: began}, contentType: contentType(r)}
	call.result = proxy.Result{Latency: time.Millisecond}
	call.target.route.Type, call.target.path = "kv", "/kv.v1.KV/Get"
	call.target.reg = &catalog.Registration{Type: "kv", SelfID: "provider", RuntimeID: "provider-1"}
	header, body := http.Header{"Content-Type": {"application/proto"}}, make([]byte, 256)
	return func() {
		call.record = newCallRecord(NopObserver{}, call.caller)
		call.record.begin(r, call)
		o := call.record.attempt()
		o.Reset()
		o.Head(http.StatusOK, header) // with framingOf, which a call does anyway
		o.Body(body)
		o.End(began, int64(len(body)))
		call.record.done(r.Context(), call, began.Add(time.Millisecond))
		call.record.end()
	}
}

// A call that comes to another provider waits there for what is left of the time that it states, and
// not for as long again.
func TestAudit_USE22_ARoutedCallHasItsTimeOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHub((&ServeConfig{}).withDefaults().settings())
		defer func() { h.callers.Close(); h.strangers.Close() }()
		id, _, err := h.store.Issue(tokenstore.Request{SelfID: "caller", Attributes: newDeclaration("caller")})
		if err != nil {
			t.Fatal(err)
		}
		endpoint, _ := proxy.ParseEndpoint("http://127.0.0.1:1", true)
		pool, err := proxy.New(proxy.Config{
			Endpoint: endpoint, DialTimeout: time.Minute,
			Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		call := &routedCall{caller: &caller{id: id, hub: h, came: time.Now()}}
		call.target.path = "/a"
		time.Sleep(600 * time.Millisecond) // in the bubble, at another one
		begun := time.Now()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
		r.Header.Set("Content-Type", "application/proto")
		r.Header.Set("Connect-Timeout-Ms", "1000")
		call.onto(pool, httptest.NewRecorder(), r)
		if took := time.Since(begun); call.result.Class != proxy.ClassUnavailable || took > 400*time.Millisecond {
			t.Errorf("%v after %v", call.result.Class, took)
		}
	})
}

// An observer learns of the last attempt what that one was like, and nothing of those before it.
func TestCallRecord_IsOfTheLastAttempt(t *testing.T) {
	t.Parallel()
	h := newHub((&ServeConfig{}).withDefaults().settings())
	t.Cleanup(func() { h.callers.Close(); h.strangers.Close() })
	id, _, err := h.store.Issue(tokenstore.Request{SelfID: "caller"})
	if err != nil {
		t.Fatal(err)
	}
	came := time.Now()
	call := &routedCall{caller: &caller{id: id, hub: h, came: came}}
	call.target.reg = &catalog.Registration{Type: "kv", SelfID: "provider", RuntimeID: "provider-1"}
	rec := newCallRecord(NopObserver{}, call.caller)
	rec.attempt().End(came.Add(time.Second), 7)
	call.result = proxy.Result{Class: proxy.ClassUnavailable}
	rec.done(t.Context(), call, came.Add(3*time.Second))
	if c := rec.call; c.Attempt != 2*time.Second || c.RequestBytes != 7 || c.Duration != 0 {
		t.Errorf("after one that failed: %+v", c)
	}
	rec.done(t.Context(), call, came.Add(4*time.Second)) // which nothing was sent of
	if c := rec.call; c.Attempt != 0 || c.RequestBytes != 0 {
		t.Errorf("after one that got nowhere: %+v", c)
	}
	rec.attempt().End(came.Add(5*time.Second), 8)
	call.result = proxy.Result{}
	rec.done(t.Context(), call, came.Add(6*time.Second))
	if c := rec.call; c.Attempt != time.Second || c.RequestBytes != 8 || c.Duration != 6*time.Second {
		t.Errorf("after one that was answered: %+v", c)
	}
}

// What is plaintext does not leave loopback; over TLS a plugin listens where it reaches its host from.
func TestAudit_USE33_PlaintextDoesNotLeaveLoopback(t *testing.T) {
	t.Parallel()
	for from, want := range map[string][2]string{ // over TLS, in plaintext
		"10.0.0.7":        {"10.0.0.7:0", defaultPluginAddr},
		"::ffff:10.0.0.7": {"10.0.0.7:0", defaultPluginAddr},
		"2001:db8::7":     {"[2001:db8::7]:0", defaultPluginAddr},
		"127.0.0.3":       {"127.0.0.3:0", "127.0.0.3:0"},
		"::1":             {"[::1]:0", "[::1]:0"},
	} {
		at := netip.MustParseAddr(from)
		if got := [2]string{listenAddr(at, false), listenAddr(at, true)}; got != want {
			t.Errorf("%s: %q, want %q", from, got, want)
		}
	}
	if got := listenAddr(netip.Addr{}, false); got != defaultPluginAddr {
		t.Errorf("from nowhere: %q", got)
	}
}

// A panic is told of at Error as each of the servers says it, bounded, in one line and once for many.
func TestServerLog_Panics(t *testing.T) {
	t.Parallel()
	stack := "\ngoroutine 7 [running]:\nmain.handler()\n\t/src/main.go:7\x1b[2J" + strings.Repeat("deeper\n", maxLoggedStack)
	for name, begins := range map[string]string{"HTTP/1.1": "http: panic serving 127.0.0.1:1: ", "HTTP/2": "http2: panic serving 127.0.0.1:1: "} {
		var out bytes.Buffer
		log := slog.NewLogLogger(newServerLog(slog.New(slog.NewTextHandler(&out, nil))), slog.LevelDebug)
		for range 3 {
			log.Print(begins + "wrong\nlevel=INFO" + stack)
		}
		log.Print(begins + "other" + stack)
		log.Print("http: a line that holds : panic serving: no")
		got := out.String()
		if strings.Count(got, "\n") != 2 || strings.Count(got, "level=ERROR") != 2 || len(got) > 4*maxLoggedStack ||
			!strings.Contains(got, "main.handler()") || !strings.Contains(got, "error=other") || strings.Contains(got, "x1b") || printable("\t7\x1b") != " 7\ufffd" {
			t.Errorf("%s: the log has %q", name, got[:min(len(got), 600)])
		}
	}
}

// A Health that blocks makes the plugin unhealthy until an answer comes in time, also where each is late, and is told of less and less often.
func TestPluginSession_HealthThatBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// How long it takes, the first how many of its answers, and what is told of that.
		for of, told := range map[[2]time.Duration]int{{healthWait - 1, 2}: 0, {healthWait + 1, 1}: 1, {healthWait + 1, 2}: 1, {time.Minute, 2}: 4} {
			out, asked := new(bytes.Buffer), time.Duration(0)
			s := newPluginSession(&PluginServerConfig{Health: func() (connectpluginv1.HealthState, string) {
				asked++
				time.Sleep([]time.Duration{0, of[0]}[min(1, max(0, of[1]+1-asked))])
				return connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "as it says"
			}, Client: ClientConfig{Logger: slog.New(slog.NewTextHandler(out, nil))}}, &Client{}, "")
			for i := range time.Duration(3) {
				time.Sleep([]time.Duration{0, time.Minute, 2 * time.Minute}[i])
				got := s.health(t.Context())
				synctest.Wait()
				if late := i < of[1] && told > 0; late != (got.reason == healthLate) || late == (got.reason == "as it says") || asked != i+1 {
					t.Errorf("%v: %d: the plugin is %v, asked %d times", of, i, got, asked)
				}
			}
			if got := strings.Count(out.String(), "PluginServerConfig.Health has not returned for"); got != told {
				t.Errorf("after %v the log has %q", of, out)
			}
		}
	})
}

// A name that a plugin stated is looked up when it registers, and not again when it is dialled,
// whatever the name means then.
func TestAudit_USE37_ANameIsLookedUpOnce(t *testing.T) {
	t.Parallel()
	own := netip.MustParseAddr("192.0.2.7")
	lookups := 0
	resolve := func(string) ([]netip.Addr, error) {
		lookups++
		return []netip.Addr{netip.MustParseAddr("192.0.2.1"), own, netip.MustParseAddr("2001:db8::1")}, nil
	}
	for baseURL, want := range map[string]string{
		"https://storage.example:8443": "https://storage.example:8443", "https://storage.example": "https://storage.example:443",
		"https://Storage.example.:1": "https://Storage.example:1",
	} {
		at, err := pinToPeer(resolve, baseURL, own.String(), false)
		if err != nil {
			t.Fatalf("%s: %v", baseURL, err)
		}
		named, resolver := proxy.Unpin(at)
		if named != want || resolver == nil {
			t.Errorf("%s is dialled as %q, looked up by %v", baseURL, named, resolver)
			continue
		}
		if addrs, err := resolver.LookupNetIP(t.Context(), "ip", "storage.example"); err != nil || len(addrs) != 1 || addrs[0] != own {
			t.Errorf("%s is dialled at %v, %v", baseURL, addrs, err)
		}
	}
	if lookups != 3 {
		t.Errorf("%d look-ups", lookups)
	}
	if at, err := pinToPeer(resolve, "https://storage.example", "192.0.2.9", false); err == nil {
		t.Errorf("another address: %s", at)
	}
}

// A program on this machine needs the zone of the address that its host listens on; certificates and
// ServeConfig.Hosts have none.
func TestLocalURL(t *testing.T) {
	t.Parallel()
	zoned := &net.TCPAddr{IP: net.ParseIP("fe80::2"), Port: 8443, Zone: "eth0"}
	for _, tt := range []struct {
		cfg  ServeConfig
		addr net.Addr
		want string
	}{
		{ServeConfig{}, zoned, "https://[fe80::2%25eth0]:8443"},
		{ServeConfig{Hosts: []string{"host", "fe80::2"}}, zoned, "https://[fe80::2%25eth0]:8443"},
		{ServeConfig{Hosts: []string{"host"}}, zoned, "https://host:8443"},
		{ServeConfig{AllowInsecure: true}, &net.TCPAddr{IP: net.IPv4zero, Port: 1}, "http://127.0.0.1:1"},
		{ServeConfig{}, &net.TCPAddr{IP: net.IPv6unspecified, Port: 1}, "https://[::1]:1"},
	} {
		got := localURL(&tt.cfg, tt.addr)
		if got == nil || *got != tt.want {
			t.Errorf("%v with Hosts %q: %v; want %s", tt.addr, tt.cfg.Hosts, got, tt.want)
			continue
		}
		if _, err := parseHostURL(*got, tt.cfg.AllowInsecure); err != nil {
			t.Errorf("%s: %v", *got, err)
		}
	}
}

// Nobody wakes up for plugins that rest all the round long, and who does not is asked beside them.
func TestProber_ThoseThatRestHaveNoTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const plugins = 100
		w := newWard(t, plugins, HealthProbeConfig{})
		p := w.prober
		list, now := p.list, time.Now()
		p.list = func() []probeTarget {
			all := list()
			for i := range all[1:] {
				all[i+1].reported = now
			}
			return all
		}
		p.begin(now)
		if len(p.queue) != plugins {
			t.Fatalf("%d of %d have a turn before anybody was asked", len(p.queue), plugins)
		}
		for _, known := range p.plugins {
			p.rest(known, catalog.HealthHealthy, now)
		}
		for round := range leastRest - 2 { // in the next one some are asked again
			now = now.Add(p.cfg.Interval)
			p.begin(now)
			if len(p.queue) != 1 || p.queue[0].id != w.targets[0].id || p.step != p.cfg.Interval {
				t.Errorf("round %d: %d have a turn, every %v; want the one that does not report", round, len(p.queue), p.step)
			}
		}
	})
}
