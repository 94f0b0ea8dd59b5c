package edge_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// bound sets a field of Limits low and reaches it on a real host.
type bound struct {
	set   func(*connectplugin.Limits)
	reach func(t *testing.T, r *rig)
}

// rig is a host on which bounds are reached: two callers have every right, "open" proves
// nothing, and the handlers of the user's set no bounds of their own.
type rig struct {
	*swellHost

	caller *connectplugin.Client
	places map[string]echo.Place
}

func newRig(t *testing.T, limit func(*connectplugin.Limits), edit func(*connectplugin.ServeConfig)) *rig {
	t.Helper()
	r := &rig{}
	all := []string{"*"}
	r.swellHost = startSwellHost(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) {
		rules := *connectplugin.OpenPolicy().Default
		c.Policy.Plugins["open"] = rules
		for _, id := range []string{"registrar", "sibling"} {
			c.Policy.Plugins[id] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides, p.Requires = all, all })
		}
		c.Policy.AllowMultiple = []string{"some", echo.Type}
		if edit != nil {
			edit(c)
		}
		limit(&c.Limits)
	})
	return r
}

// call enrols the caller and returns the ways to call.
func (r *rig) call(t *testing.T) map[string]echo.Place {
	t.Helper()
	if r.caller == nil {
		r.caller, r.places = r.Places(t)
	}
	return r.places
}

// meets repeats what a bound allows a few times and no more: it fails with the code.
func meets(t *testing.T, code connect.Code, do func(i int) error) {
	t.Helper()
	const most = 12
	for i := range most {
		err := do(i)
		switch {
		case err == nil:
			continue
		case i == 0:
			t.Errorf("nothing is allowed: %v", err)
		case connect.CodeOf(err) != code:
			t.Errorf("the bound is met with %v, want %v", err, code)
		}
		return
	}
	t.Errorf("there is no bound of %d", most)
}

// Every field of Limits has an entry in bounds, which reaches it; what has none is no bound.
func TestAudit_ATK14_EveryFieldOfLimitsIsReached(t *testing.T) {
	t.Parallel()
	bounds := map[string]bound{}
	for _, some := range []map[string]bound{messageBounds(), connectionBounds(), timeBounds(), identityBounds(), registryBounds()} {
		maps.Copy(bounds, some)
	}
	fields := reflect.TypeFor[connectplugin.Limits]()
	for field := range fields.Fields() {
		name := field.Name
		b, ok := bounds[name]
		if !ok {
			t.Errorf("Limits.%s: nothing reaches it", name)
			continue
		}
		delete(bounds, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, b.set, nil)
			b.reach(t, r)
			if slices.Contains(namedInAudit, name) {
				auditNames(t, r, "Limits."+name)
			}
		})
	}
	for name := range bounds {
		t.Errorf("Limits.%s: there is no such field", name)
	}
}

// namedInAudit are the fields that the audit names when they are reached.
var namedInAudit = []string{
	"RequestsPerSecond", "RequestBurst", "BytesPerSecond", "BytesBurst", "ChangesPerSecond", "ChangeBurst", "MaxOpenCalls", "MaxOpenCallsPerIdentity",
	"MaxGrantsPerIdentity", "MaxRegistrations", "MaxRegistrationsPerPlugin", "MaxRegistrationsPerType", "MaxWatches", "MaxWatchesPerPlugin",
	"HandshakesPerSecond", "HandshakeBurst", "EnrolmentsPerSecond", "EnrolmentBurst", "MaxIdentities", "MaxIdentitiesPerSelfID", "MaxIdentitiesPerPeer",
	"MaxLookups", "MaxLookupsPerPlugin",
	"MaxHeaderBytes", "MaxMessageBytes", "MaxFieldEntries", "MaxFieldBytes", "MaxHandshakeBytes", "MaxCallBytes", "MaxDecompressedBytes", "MaxDecompressionRatio", "BodyTimeout",
	"MaxConnections", "MaxConnectionsPerPeer", "ConnectionsPerSecond", "ConnectionBurst", "ReadHeaderTimeout", "KeepAliveTimeout",
	"PingsPerSecond", "PingBurst", "RefusalsPerSecond", "RefusalBurst", "MaxPendingHandshakes", "MaxPendingHandshakesPerPeer",
}

// auditNames demands an event that says which field was reached, and from where.
func auditNames(t *testing.T, r *rig, field string) {
	t.Helper()
	whole := regexp.MustCompile(`\b` + field + `\b`) // MaxLookups is no MaxLookupsPerPlugin
	hosttest.Eventually(t, "an audit event names "+field, func() bool {
		for _, e := range r.Audit.Events() {
			if e.Kind != connectplugin.AuditLimited || !whole.MatchString(e.Reason) {
				continue
			}
			if strings.HasPrefix(e.Reason, "tokenstore: ") {
				t.Errorf("the reason begins with the name of a package: %s", e.Reason)
			}
			if e.Peer == "" {
				t.Errorf("the event names no peer: %v", e)
			}
			return true
		}
		return false
	})
}

// What is negative elsewhere is named, too, with what to write.
func TestAudit_ATK14_NegativeFieldsSayWhatToWrite(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	for field, edit := range map[string]func(*connectplugin.ServeConfig){
		"GracefulShutdownTimeout": func(c *connectplugin.ServeConfig) { c.GracefulShutdownTimeout = -1 },
		"RuntimeTokenTTL":         func(c *connectplugin.ServeConfig) { c.RuntimeTokenTTL = -1 },
		"HealthProbe.Lease":       func(c *connectplugin.ServeConfig) { c.HealthProbe.Lease = -1 },
		`Policy.Plugins["a"].MaxInstances`: func(c *connectplugin.ServeConfig) {
			c.Policy = hosttest.PolicyOf("a", func(p *connectplugin.PluginPolicy) { p.MaxInstances = -1 })
		},
	} {
		cfg := &connectplugin.ServeConfig{Authority: authority}
		edit(cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), field+": is negative; write 0 for the default") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// A lease in which a plugin could not show life is refused with the least that would do.
func TestALeaseSaysHowLongItHasToBe(t *testing.T) {
	t.Parallel()
	const want = "HealthProbe.Lease: 15s is shorter than two of HealthProbe.Interval, 10s, so that a plugin could not show in time that it is alive; " +
		"write 20s or more, or a shorter Interval"
	cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t)}
	cfg.HealthProbe.Lease = 15 * time.Second
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
}

// A rate that is no number is said to be none, and not to be negative.
func TestAudit_ATK14_ARateThatIsNoNumberIsSaidToBeNone(t *testing.T) {
	t.Parallel()
	cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), Limits: connectplugin.Limits{RequestsPerSecond: math.NaN()}}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "Limits.RequestsPerSecond: is not a number;") {
		t.Error(err)
	}
}

// A bound that is less than none is refused by its name, whichever it is.
func TestAudit_ATK14_NegativeLimitsAreRefused(t *testing.T) {
	t.Parallel()
	fields := reflect.TypeFor[connectplugin.Limits]()
	authority := hosttest.NewAuthority(t)
	for i := range fields.NumField() {
		cfg := &connectplugin.ServeConfig{Authority: authority}
		switch f := reflect.ValueOf(&cfg.Limits).Elem().Field(i); {
		case f.CanInt():
			f.SetInt(-1)
		case f.CanFloat():
			f.SetFloat(-1)
		}
		if _, err := connectplugin.NewHost(cfg); err == nil || !strings.Contains(err.Error(), "Limits."+fields.Field(i).Name) {
			t.Errorf("Limits.%s is negative: %v", fields.Field(i).Name, err)
		}
	}
}

// messageBounds are those of messages.
func messageBounds() map[string]bound {
	const low = 2 << 10
	say := func(t *testing.T, r *rig, size int, opts ...connect.ClientOption) error {
		t.Helper()
		place := r.call(t)["host plugin"]
		req := connect.NewRequest(&echo.Text{Value: string(make([]byte, size))})
		maps.Copy(req.Header(), place.Header)
		_, err := echo.NewClient(echo.At(place.URL, r.caller.HTTPClient()), echo.Unary, opts...).CallUnary(t.Context(), req)
		return err
	}
	sizes := func(t *testing.T, r *rig, size int, opts ...connect.ClientOption) {
		t.Helper()
		meets(t, connect.CodeResourceExhausted, func(i int) error { return say(t, r, i*size, opts...) })
	}
	return map[string]bound{
		"MaxHeaderBytes": {func(l *connectplugin.Limits) { l.MaxHeaderBytes = low }, func(t *testing.T, r *rig) {
			t.Helper()
			header := map[string][]string{"Content-Type": {"application/json"}, "X-Long": {strings.Repeat("x", 64<<10)}}
			if answer := post(t, r.Stranger(t), r.URL+handshakeProc, header, nil); strings.HasPrefix(answer, "2") || strings.HasPrefix(answer, "400") {
				t.Errorf("a header of 64 KiB: %s", answer)
			}
			tooManyFields(t, r)
			r.call(t)
			req := connect.NewRequest(&connectpluginv1.HealthCheckRequest{})
			req.Header().Set("X-Long", strings.Repeat("x", 2*low))
			_, err := connectpluginv1connect.NewHealthServiceClient(r.caller.HTTPClient(), r.URL).Check(t.Context(), req)
			if connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "Limits.MaxHeaderBytes") {
				t.Errorf("a large header of a client: %v", err)
			}
		}},
		"MaxMessageBytes": {func(l *connectplugin.Limits) { l.MaxMessageBytes = low }, func(t *testing.T, r *rig) {
			t.Helper()
			r.call(t)
			if _, err := hosttest.Discover(t, r.caller, strings.Repeat("x", 2*low), ""); connect.CodeOf(err) != connect.CodeResourceExhausted {
				t.Error(err)
			}
		}},
		"MaxFieldEntries": {func(l *connectplugin.Limits) { l.MaxFieldEntries = 4 }, reachFields(func(i int) *connectpluginv1.RegisterServiceRequest {
			m := &connectpluginv1.RegisterServiceRequest{Metadata: map[string]string{}}
			for n := range 3 * i {
				m.Metadata[fmt.Sprint("k", n)] = ""
			}
			return m
		})},
		"MaxFieldBytes": {func(l *connectplugin.Limits) { l.MaxFieldBytes = 64 }, reachFields(func(i int) *connectpluginv1.RegisterServiceRequest {
			return &connectpluginv1.RegisterServiceRequest{Metadata: map[string]string{"k": strings.Repeat("x", 30*i)}}
		})},
		"MaxCallBytes": {func(l *connectplugin.Limits) { l.MaxCallBytes = low }, func(t *testing.T, r *rig) {
			t.Helper()
			sizes(t, r, low)
		}},
		"MaxDecompressedBytes": {func(l *connectplugin.Limits) { l.MaxDecompressedBytes = low }, func(t *testing.T, r *rig) {
			t.Helper()
			sizes(t, r, low, connect.WithSendGzip())
		}},
		"MaxDecompressionRatio": {func(l *connectplugin.Limits) { l.MaxDecompressionRatio = 2 }, func(t *testing.T, r *rig) {
			t.Helper()
			place, size := r.call(t)["host plugin"], 1200<<10 // what has no bound but that, and some more
			req := connect.NewRequest(&echo.Text{Value: shrinking(size)})
			maps.Copy(req.Header(), place.Header)
			_, err := echo.NewClient(echo.At(place.URL, r.caller.HTTPClient()), echo.Unary, connect.WithSendGzip()).CallUnary(t.Context(), req)
			if connect.CodeOf(err) != connect.CodeResourceExhausted {
				t.Errorf("a message that shrinks to a tenth: %v", err)
			}
			meets(t, connect.CodeResourceExhausted, func(i int) error { return say(t, r, i*600<<10, connect.WithSendGzip()) })
		}},
		"MaxHandshakeBytes": {func(l *connectplugin.Limits) { l.MaxHandshakeBytes = low }, func(t *testing.T, r *rig) {
			t.Helper()
			meets(t, connect.CodeResourceExhausted, func(i int) error {
				m := hosttest.OldRequest("open")
				m.ClientMetadata = map[string]string{"k": strings.Repeat("x", i*low/2)}
				return hosttest.ErrorOf(hosttest.HandshakeClient(t, r.Host).Handshake(t.Context(), connect.NewRequest(m)))
			})
		}},
		"MaxOpenCalls":              {func(l *connectplugin.Limits) { l.MaxOpenCalls = 8 }, reachOpenCalls},
		"MaxOpenCallsPerIdentity":   {func(l *connectplugin.Limits) { l.MaxOpenCallsPerIdentity = 3 }, reachOpenCalls},
		"MaxUnreadBytesPerIdentity": {func(l *connectplugin.Limits) { l.MaxUnreadBytesPerIdentity = 1 }, reachUnread},
	}
}

// shrinking is a text that gzip shrinks to a tenth, about.
func shrinking(size int) string {
	var b strings.Builder
	for _, some := range noise(size / 20) {
		fmt.Fprintf(&b, "%02x%s", some, strings.Repeat("a", 18))
		if b.Len() >= size {
			break
		}
	}
	return b.String()
}

// longType has more bytes than the bound that is set here, and no more than a type may have.
var longType = strings.Repeat("x", 100)

// reachFields registers with messages whose fields have more and more, and watches with one of them.
func reachFields(message func(i int) *connectpluginv1.RegisterServiceRequest) func(t *testing.T, r *rig) {
	return func(t *testing.T, r *rig) {
		t.Helper()
		c := r.Enrol(t, "registrar", hosttest.Declaring(manyTypes()[:4], manyTypes()[:4]))
		meets(t, connect.CodeInvalidArgument, func(i int) error {
			m := message(i)
			m.ServiceType, m.Version, m.EndpointPath = manyTypes()[i], "1.0.0", "/"+manyTypes()[i]+"/"
			return hosttest.RegisterWith(t, c, m)
		})
		if err := watchOnce(t, r.Host, c, manyTypes()[0]); err != nil {
			t.Errorf("an honest watch: %v", err)
		}
		if err := watchOnce(t, r.Host, c, longType); connect.CodeOf(err) == connect.CodeInvalidArgument != (message(1).GetMetadata()["k"] != "") {
			t.Errorf("a watch of a type with %d bytes: %v", len(longType), err)
		}
	}
}

func reachOpenCalls(t *testing.T, r *rig) {
	t.Helper()
	meets(t, connect.CodeResourceExhausted, func(int) error {
		_, err := openStream(t, r.caller1(t), r.places["host plugin"])
		return err
	})
}

func (r *rig) caller1(t *testing.T) connect.HTTPClient {
	t.Helper()
	r.call(t)
	return r.caller.HTTPClient()
}

// identityBounds are those of handshakes, identities and their requests.
func identityBounds() map[string]bound {
	enrol := func(t *testing.T, r *rig) {
		t.Helper()
		meets(t, connect.CodeResourceExhausted, func(int) error {
			return hosttest.ErrorOf(hosttest.HandshakeClient(t, r.Host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("open"))))
		})
	}
	full := func(t *testing.T, r *rig) {
		t.Helper()
		enrol(t, r)
		_, err := hosttest.HandshakeClient(t, r.Host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("open")))
		coded, ok := errors.AsType[*connect.Error](err)
		if wait := retryHint(err); !ok || wait <= 0 || wait > time.Minute || coded.Meta().Get("Retry-After") == "" {
			t.Errorf("it is not told when to come again: %v", err)
		} else if strings.ContainsAny(coded.Message(), "0123456789") {
			t.Errorf("a stranger learns how many there may be: %v", err)
		}
	}
	pending := func(t *testing.T, r *rig) {
		t.Helper()
		answers := make(chan string, 3) // whichever came first makes room
		for range cap(answers) {
			one := stick(t, r.Stranger(t), r.URL+handshakeProc, map[string][]string{"Content-Type": {"application/proto"}}, []byte{1})
			go func() { answers <- <-one.answer }()
		}
		if answer := hosttest.Arrival(t, answers); !says(answer, connect.CodeResourceExhausted) {
			t.Error(answer)
		}
	}
	requests := func(t *testing.T, r *rig) {
		t.Helper()
		c := r.Enrol(t, "registrar", nil)
		meets(t, connect.CodeResourceExhausted, func(int) error { return hosttest.ErrorOf(healthCheck(t, r, c)) })
	}
	const never = 1e-6
	return map[string]bound{
		"MaxPendingHandshakes":        {func(l *connectplugin.Limits) { l.MaxPendingHandshakes = 2 }, pending},
		"MaxPendingHandshakesPerPeer": {func(l *connectplugin.Limits) { l.MaxPendingHandshakesPerPeer = 2 }, pending},
		"HandshakesPerSecond":         {func(l *connectplugin.Limits) { l.HandshakesPerSecond, l.HandshakeBurst = never, 3 }, enrol},
		"HandshakeBurst":              {func(l *connectplugin.Limits) { l.HandshakeBurst, l.HandshakesPerSecond = 2, never }, enrol},
		"EnrolmentsPerSecond":         {func(l *connectplugin.Limits) { l.EnrolmentsPerSecond, l.EnrolmentBurst = never, 3 }, enrol},
		"EnrolmentBurst":              {func(l *connectplugin.Limits) { l.EnrolmentBurst, l.EnrolmentsPerSecond = 2, never }, enrol},
		"MaxIdentities":               {func(l *connectplugin.Limits) { l.MaxIdentities = 3 }, full},
		"MaxIdentitiesPerSelfID":      {func(l *connectplugin.Limits) { l.MaxIdentitiesPerSelfID = 3 }, full},
		"MaxIdentitiesPerPeer":        {func(l *connectplugin.Limits) { l.MaxIdentitiesPerPeer = 3 }, full},
		"RequestsPerSecond":           {func(l *connectplugin.Limits) { l.RequestsPerSecond, l.RequestBurst = never, 8 }, requests},
		"RequestBurst":                {func(l *connectplugin.Limits) { l.RequestBurst, l.RequestsPerSecond = 6, never }, requests},
		"BytesPerSecond":              {func(l *connectplugin.Limits) { l.BytesPerSecond, l.BytesBurst = 1<<10, 16<<10 }, reachBytes},
		"BytesBurst":                  {func(l *connectplugin.Limits) { l.BytesBurst, l.BytesPerSecond = 12<<10, 1<<10 }, reachBytes},
		"MaxGrantsPerIdentity": {func(l *connectplugin.Limits) { l.MaxGrantsPerIdentity = 3 }, func(t *testing.T, r *rig) {
			t.Helper()
			c := r.Enrol(t, "caller", nil)
			meets(t, connect.CodeResourceExhausted, func(int) error {
				err := hosttest.ErrorOf(askGrant(t, r.Host, c))
				if err != nil && !strings.Contains(err.Error(), "too many grants") {
					t.Errorf("its caller is told %v", err)
				}
				return err
			})
		}},
		"TokenGrace": {func(l *connectplugin.Limits) { l.TokenGrace = time.Microsecond }, func(t *testing.T, r *rig) {
			t.Helper()
			handshake := hosttest.HandshakeClient(t, r.Host)
			before, err := handshake.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("open")))
			if err != nil {
				t.Fatal(err)
			}
			id, token := before.Msg.GetRuntimeId(), before.Msg.GetRuntimeToken()
			after, err := handshake.Handshake(t.Context(), hosttest.WithCredentials(hosttest.OldRequest("open"), id, token))
			if err != nil {
				t.Fatal(err)
			}
			hosttest.WantCode(t, "the token before", hosttest.ReportAs(t, r.Host, id, token), connect.CodeUnauthenticated)
			hosttest.WantCode(t, "the token of now", hosttest.ReportAs(t, r.Host, id, after.Msg.GetRuntimeToken()), 0)
		}},
	}
}

// registryBounds are those of registrations, watches and what is told of them.
func registryBounds() map[string]bound {
	const never = 1e-6
	register := func(selfIDs ...string) func(t *testing.T, r *rig) {
		return func(t *testing.T, r *rig) {
			t.Helper()
			meets(t, connect.CodeResourceExhausted, func(i int) error {
				c := r.Enrol(t, selfIDs[i%len(selfIDs)], hosttest.Providing("some"))
				return hosttest.ErrorOf(hosttest.Register(t, c, "some", "1.0.0"))
			})
		}
	}
	each := func(t *testing.T, r *rig) {
		t.Helper()
		c := r.Enrol(t, "registrar", hosttest.Providing(manyTypes()...))
		meets(t, connect.CodeResourceExhausted, func(i int) error { return hosttest.ErrorOf(hosttest.Register(t, c, manyTypes()[i], "1.0.0")) })
	}
	watch := func(t *testing.T, r *rig) {
		t.Helper()
		c := r.Enrol(t, "registrar", hosttest.Requiring(manyTypes()...))
		meets(t, connect.CodeResourceExhausted, func(i int) error { return watchOnce(t, r.Host, c, manyTypes()[i]) })
	}
	return map[string]bound{
		"ChangesPerSecond":          {func(l *connectplugin.Limits) { l.ChangesPerSecond, l.ChangeBurst = never, 4 }, each},
		"ChangeBurst":               {func(l *connectplugin.Limits) { l.ChangeBurst, l.ChangesPerSecond = 3, never }, each},
		"MaxRegistrations":          {func(l *connectplugin.Limits) { l.MaxRegistrations = 3 }, each},
		"MaxRegistrationsPerPlugin": {func(l *connectplugin.Limits) { l.MaxRegistrationsPerPlugin = 3 }, each},
		"MaxRegistrationsPerType":   {func(l *connectplugin.Limits) { l.MaxRegistrationsPerType = 2 }, register("registrar", "sibling")},
		"MaxWatches":                {func(l *connectplugin.Limits) { l.MaxWatches = 3 }, watch},
		"MaxWatchesPerPlugin":       {func(l *connectplugin.Limits) { l.MaxWatchesPerPlugin = 3 }, watch},
		"WatchEventsPerSecond":      {func(l *connectplugin.Limits) { l.WatchEventsPerSecond, l.WatchEventBurst = never, 2 }, reachEvents(2)},
		"WatchEventBurst":           {func(l *connectplugin.Limits) { l.WatchEventBurst, l.WatchEventsPerSecond = 3, never }, reachEvents(3)},
		"WatchBuffer":               {func(l *connectplugin.Limits) { l.WatchBuffer = 2 }, reachBuffer},
		"AnnouncedBytesPerSecond":   {func(l *connectplugin.Limits) { l.AnnouncedBytesPerSecond, l.AnnouncedBytesBurst = 1, announcedOnce }, reachAnnounced},
		"AnnouncedBytesBurst":       {func(l *connectplugin.Limits) { l.AnnouncedBytesBurst, l.AnnouncedBytesPerSecond = announcedOnce, 1 }, reachAnnounced},
		"MaxLookups":                {func(l *connectplugin.Limits) { l.MaxLookups, l.DialTimeout = 1, hosttest.Wait }, reachLookups},
		"MaxLookupsPerPlugin":       {func(l *connectplugin.Limits) { l.MaxLookupsPerPlugin, l.DialTimeout = 1, hosttest.Wait }, reachLookups},
		"LookupTTL":                 {func(l *connectplugin.Limits) { l.LookupTTL = time.Microsecond }, reachLookupTTL},
	}
}

func manyTypes() []string {
	types := make([]string, 12)
	for i := range types {
		types[i] = fmt.Sprintf("type-%d", i)
	}
	return types
}
