package connectplugin

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// However often those that stand by, or calls that do not reach it, have a provider asked that does not answer, it is asked once
// a second, and dead when it did not answer three times; for calls more and more seldom then.
func TestAudit_USE39_USE11_WhoIsMissedDiesNoSooner(t *testing.T) {
	t.Parallel()
	for missed, want := range map[bool][]int{false: {0, 1, 2, 3, 4}, true: {0, 1, 2, 4, 8}} {
		synctest.Test(t, func(t *testing.T) {
			w, gone := newWard(t, 1, HealthProbeConfig{Interval: time.Hour, Lease: 9 * time.Hour}), []int(nil)
			w.answer = func(context.Context, string) error { return errors.New("refused") }
			w.prober.awaited = func(*tokenstore.Identity) bool { return !missed }
			w.prober.gone = func(*tokenstore.Identity) { gone = append(gone, int(time.Since(w.began)/time.Second)) }
			w.prober.list = func() []probeTarget { return nil } // no rounds
			go func() {
				for range 300 {
					w.prober.urge(w.targets[0].id, missed)
					time.Sleep(10 * time.Millisecond) // in the bubble
				}
			}()
			w.run(t, time.Duration(want[4])*time.Second+pressInterval/2)
			for i, asked := range w.asked["p0"] {
				if len(w.asked["p0"]) != len(want) || int(asked/time.Second) != want[i] || !slices.Equal(gone, want[2:]) {
					t.Errorf("missed: %v, asked at %v, dead at %v", missed, w.asked["p0"], gone)
				}
			}
		})
	}
}

// Dead is one that showed no life for a while, and that the host asked in vain: none that is connected,
// makes a call or lived a moment ago, and none that says of itself that it is ill.
func TestAudit_USE39_WhoIsDead(t *testing.T) {
	t.Parallel()
	silent := func(v *healthView) { v.silent = true }
	ill := func(v *healthView) { v.reported.Health = catalog.HealthUnhealthy }
	for name, c := range map[string]struct {
		view  func(*healthView)
		lives func(*tokenstore.Identity)
		since time.Duration
		dead  bool
	}{
		"silent":                     {silent, nil, time.Minute, true},
		"silent, and it is ill":      {func(v *healthView) { silent(v); ill(v) }, nil, time.Minute, true},
		"ill":                        {ill, nil, time.Minute, false},
		"nothing is known":           {func(*healthView) {}, nil, time.Minute, false},
		"silent, lived a moment ago": {silent, (*tokenstore.Identity).Seen, deadAfter - 1, false},
		"silent, lived long ago":     {silent, (*tokenstore.Identity).Seen, deadAfter, true},
		"silent, and connected":      {silent, (*tokenstore.Identity).Attach, time.Minute, false},
		"silent, and makes a call":   {silent, (*tokenstore.Identity).Enter, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h, err := NewHost(&ServeConfig{AllowInsecure: true, Policy: OpenPolicy(), Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = h.Shutdown(t.Context()) }()
				id, _, err := h.hub.store.Issue(tokenstore.Request{SelfID: "p", Peer: "192.0.2.1", Attributes: newDeclaration("p")})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute) // in the bubble
				if c.lives != nil {
					c.lives(id)
				}
				if err := h.lifecycle.take(id.RuntimeID(), id, c.view); err != nil {
					t.Fatal(err)
				}
				time.Sleep(c.since) // in the bubble
				if dead := h.registry.isDead(h.hub, id.RuntimeID()); dead != c.dead {
					t.Errorf("dead: %v", dead)
				}
			})
		})
	}
}

type negotiation struct {
	hostMin, hostMax    int
	exact, lowest, most int32
}

func (n negotiation) run() (int32, error) {
	return negotiateVersion(
		&connectpluginv1.HandshakeRequest{AppProtocolVersion: n.exact, MinProtocolVersion: n.lowest, MaxProtocolVersion: n.most},
		versionsBetween(n.hostMin, n.hostMax),
	)
}

var negotiations = map[string]struct {
	give negotiation
	want int32
	err  error
}{
	"both the same":                      {negotiation{1, 1, 1, 1, 1}, 1, nil},
	"highest of both":                    {negotiation{1, 4, 3, 2, 3}, 3, nil},
	"highest of the host":                {negotiation{1, 4, 9, 2, 9}, 4, nil},
	"one in common, at the bottom":       {negotiation{3, 5, 3, 1, 3}, 3, nil},
	"one in common, at the top":          {negotiation{3, 5, 9, 5, 9}, 5, nil},
	"peer below the host's minimum":      {negotiation{3, 5, 2, 1, 2}, 0, errNoCommonVersion},
	"peer's minimum above the host":      {negotiation{3, 5, 9, 6, 9}, 0, errNoCommonVersion},
	"exact, in the range":                {negotiation{1, 3, 2, 0, 0}, 2, nil},
	"exact, the lowest":                  {negotiation{2, 3, 2, 0, 0}, 2, nil},
	"exact, the highest":                 {negotiation{2, 3, 3, 0, 0}, 3, nil},
	"exact, below the minimum":           {negotiation{2, 3, 1, 0, 0}, 0, errNoCommonVersion},
	"exact, too new":                     {negotiation{2, 3, 4, 0, 0}, 0, errNoCommonVersion},
	"nothing named":                      {negotiation{1, 3, 0, 0, 0}, 0, errNoCommonVersion},
	"only a minimum beside the exact":    {negotiation{1, 3, 3, 2, 0}, 3, nil},
	"only a maximum beside the exact":    {negotiation{1, 3, 2, 0, 9}, 3, nil},
	"the range wins over the exact":      {negotiation{1, 3, 3, 1, 2}, 2, nil},
	"upside down":                        {negotiation{1, 3, 1, 3, 1}, 0, errVersionRange},
	"minimum above the exact":            {negotiation{1, 3, 1, 2, 0}, 0, errVersionRange},
	"maximum below the exact":            {negotiation{1, 3, 3, 0, 2}, 0, errVersionRange},
	"negative exact":                     {negotiation{1, 3, -1, 0, 0}, 0, errVersionRange},
	"negative minimum":                   {negotiation{1, 3, 1, -1, 3}, 0, errVersionRange},
	"negative maximum":                   {negotiation{1, 3, 1, 1, -1}, 0, errVersionRange},
	"negative both":                      {negotiation{1, 3, 1, -3, -1}, 0, errVersionRange},
	"extremes":                           {negotiation{1, math.MaxInt, 1, 1, math.MaxInt32}, math.MaxInt32, nil},
	"smallest possible":                  {negotiation{1, 3, math.MinInt32, math.MinInt32, math.MinInt32}, 0, errVersionRange},
	"a host with a range that is no one": {negotiation{3, 1, 2, 1, 3}, 0, errVersionRange},
}

func TestAudit_PROTO12_HighestCommonVersion(t *testing.T) {
	t.Parallel()
	for name, tt := range negotiations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.give.run()
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %d, %v; want %d, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestAudit_PROTO13_DeprecatedVersionsAreWarnedOf(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		version int32
		below   int
		want    bool
	}{
		"none deprecated": {1, 0, false},
		"below":           {2, 3, true},
		"at":              {3, 3, false},
		"above":           {4, 3, false},
		"below a maximum": {4, math.MaxInt, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := deprecationWarning(tt.version, wireVersion(tt.below))
			if (got != "") != tt.want || tt.want && !strings.Contains(got, "is deprecated") {
				t.Errorf("got %q, want a warning: %v", got, tt.want)
			}
		})
	}
}

// FuzzNegotiateVersion compares with an oracle that tries every version in turn.
func FuzzNegotiateVersion(f *testing.F) {
	for _, tt := range negotiations {
		n := tt.give
		f.Add(int8(n.hostMin), int8(n.hostMax), int8(n.exact), int8(n.lowest), int8(n.most))
	}
	f.Fuzz(func(t *testing.T, hostMin, hostMax, exact, lowest, most int8) {
		n := negotiation{int(hostMin), int(hostMax), int32(exact), int32(lowest), int32(most)}
		got, err := n.run()
		want, ok := tryEveryVersion(n)
		if ok != (err == nil) || got != want {
			t.Errorf("%+v: got %d, %v; want %d, %v", n, got, err, want, ok)
		}
	})
}

// tryEveryVersion asks both sides about each version from the highest down.
func tryEveryVersion(n negotiation) (int32, bool) {
	peerSpeaks := func(v int32) bool {
		switch {
		case n.lowest != 0 && n.most != 0:
			return n.lowest <= v && v <= n.most
		case n.lowest != 0:
			return n.lowest <= v && v <= n.exact
		case n.most != 0:
			return n.exact <= v && v <= n.most
		default:
			return v == n.exact
		}
	}
	hostSpeaks := func(v int32) bool { return n.hostMin <= int(v) && int(v) <= n.hostMax }
	for v := int32(math.MaxInt8); v >= math.MinInt8; v-- {
		if v < 0 && (peerSpeaks(v) || hostSpeaks(v)) {
			return 0, false // negative versions do not exist: who offers them is refused
		}
	}
	for v := int32(math.MaxInt8); v >= 0; v-- {
		if peerSpeaks(v) && hostSpeaks(v) {
			return v, true
		}
	}
	return 0, false
}

// Waits grow with the time that an interruption has lasted, between bounds, and end with it.
func TestPace_GrowsAndEnds(t *testing.T) {
	t.Parallel()
	var p pace
	start := time.Unix(1e9, 0)
	p.lost(start, errHostLost)
	if w := p.wait(start); w < 0 || w >= paceLost {
		t.Errorf("after a loss: %s", w)
	}
	for _, lasted := range []time.Duration{0, time.Second, 10 * time.Second, time.Hour} {
		most := min(max(lasted/paceShare, paceLeast), paceMost)
		for range 100 {
			now := start.Add(lasted)
			p.failed(now, errHostLost)
			if w := p.wait(now); w < 0 || w >= most {
				t.Errorf("after %s: %s, want less than %s", lasted, w, most)
			}
		}
	}
	if !p.over() || p.over() || p.wait(start) > 0 {
		t.Error("the interruption did not end once")
	}
}

// Who is turned away at the door comes back later than who finds nobody: of a crowd that the
// host has no room for, each attempt costs both sides some of a TLS handshake.
func TestAudit_USE42_WhoIsTurnedAwayComesBackLater(t *testing.T) {
	t.Parallel()
	away := explainTLS(io.EOF)
	if _, ok := errors.AsType[*trustError](away); ok {
		t.Fatalf("%v is said to be a matter of trust", away)
	}
	for lasted, most := range map[time.Duration]time.Duration{0: paceBusy, 4 * time.Second: 2 * time.Second, time.Hour: paceMost} {
		var p pace
		start := time.Unix(1e9, 0)
		p.lost(start, errHostLost)
		longest, now := time.Duration(0), start.Add(lasted)
		for range 200 {
			p.failed(now, &lostError{err: away})
			longest = max(longest, p.wait(now))
		}
		if longest >= most || longest < most/2 {
			t.Errorf("after %s: up to %s, want up to %s", lasted, longest, most)
		}
	}
}

// A host that refuses each renewal, as for a certificate that ended, is asked less and less often.
func TestRenewal_IsPacedWhereTheHostRefuses(t *testing.T) {
	t.Parallel()
	asked := 0
	for waited := time.Duration(0); waited < 4*time.Second; waited += max(retryIn(0, asked), renewFloor) {
		asked++
	}
	if asked > 8 {
		t.Errorf("asked %d times in 4 s", asked)
	}
	if got := retryIn(time.Hour, 1); got != time.Hour {
		t.Errorf("a host out of reach is asked after %s", got)
	}
}

// What goes on failing is told at the first failure and then less and less often.
func TestAudit_USE39_ARenewalThatGoesOnFailingIsToldLessOften(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := &Client{cfg: ClientConfig{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
	for failures := 1; failures <= 20; failures++ {
		c.notRenewed(failures, errors.New("refused"))
	}
	if told := strings.Count(log.String(), "renewing the runtime token failed"); told != 5 { // 1, 2, 4, 8, 16
		t.Errorf("told %d times of 20 failures", told)
	}
}

// A plugin says of a host that answers that it is not taken yet, and not that the host is away.
func TestAudit_USE39_AHostThatRefusesIsNotCalledAway(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		busy(0): notTakenYet,
		connect.NewError(connect.CodeFailedPrecondition, errors.New("no")): notTakenYet,
		connect.NewError(connect.CodeUnavailable, errors.New("no")):        "the host is not reachable",
		&lostError{err: busy(0)}: "the host is not reachable",
		errors.New("no"):         "the host is not reachable",
	} {
		var log bytes.Buffer
		s := &pluginSession{client: &Client{}, cfg: &PluginServerConfig{}}
		s.cfg.Client.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s.again(1, err)
		if !strings.Contains(log.String(), want) {
			t.Errorf("%v: the log has %s", err, &log)
		}
	}
}

// What the host asks for is waited for, in either form; what is malformed is not.
func TestPace_WaitsAsLongAsTheHostAsks(t *testing.T) {
	t.Parallel()
	header := connect.NewError(connect.CodeResourceExhausted, errors.New("busy"))
	header.Meta().Set(headerRetryAfter, "7")
	now := time.Unix(1e9, 0)
	var p pace
	p.failed(now, header)
	if w := p.wait(now); w < 7*time.Second || w >= 7*time.Second+paceBusy {
		t.Errorf("Retry-After: %s", w)
	}
	duration := protowire.AppendVarint(protowire.AppendTag(nil, fieldSeconds, protowire.VarintType), 3)
	duration = protowire.AppendVarint(protowire.AppendTag(duration, fieldNanos, protowire.VarintType), 5)
	info := protowire.AppendBytes(protowire.AppendTag(nil, fieldRetryDelay, protowire.BytesType), duration)
	if d := retryDelay(info); d != 3*time.Second+5 {
		t.Errorf("RetryInfo: %s", d)
	}
	for n := range info {
		if d := retryDelay(info[:n]); d != 0 {
			t.Errorf("%d of %d bytes: %s", n, len(info), d)
		}
	}
}

// Whoever waits to ask the host again does so as soon as somebody else has reached it, and not before its time otherwise.
func TestAwaitHost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reached, ends, want time.Duration
		alive               bool
	}{
		"nobody reaches it": {time.Hour, time.Hour, time.Minute, true},
		"somebody does":     {time.Second, time.Hour, time.Second, true},
		"it is over":        {time.Hour, time.Second, time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := &Client{reachable: make(chan struct{})}
				ctx, cancel := context.WithTimeout(t.Context(), tt.ends)
				defer cancel()
				begun := time.Now()
				c.pace.lost(begun, errForgetful)
				reaches := time.AfterFunc(tt.reached, func() {
					c.mu.Lock()
					defer c.mu.Unlock()
					c.reachableLocked()
				})
				defer reaches.Stop()
				if alive := c.awaitHost(ctx, time.Minute); alive != tt.alive || time.Since(begun) != tt.want {
					t.Errorf("%v after %v", alive, time.Since(begun))
				}
			})
		})
	}
}

// Whoever follows a type at a host that does not take the plugin asks again when its client does, and not later.
func TestAudit_USE23_AWatchOfWhomTheHostRefusesAsksWithItsClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &Client{reachable: make(chan struct{})}
		w := &serviceWatch{client: c, withdrawn: func(error) {}, granted: true, failures: 10}
		for range 10 {
			c.pace.failed(time.Now(), ErrHandshakeRefused)
			if due := c.pace.next; !w.awaitGrant(t.Context(), ErrHandshakeRefused) || !time.Now().Equal(due) {
				t.Errorf("it asks at %v, and the client at %v", time.Now(), due)
			}
		}
	})
}

// A type that several may provide by now is left to all of them by who settles it late, with a
// policy in hand by which it belonged to one.
func TestAudit_USE22_ATypeThatIsSharedAgainStaysShared(t *testing.T) {
	t.Parallel()
	h, err := NewHost(&ServeConfig{AllowInsecure: true, Policy: &Policy{AllowMultiple: []string{"echo"}}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Shutdown(t.Context()) }()
	for _, name := range []string{"a", "b"} {
		reg := catalog.Registration{ID: name, RuntimeID: name + "-1", SelfID: name, Type: "echo", Version: "1.0.0"}
		if err := h.registry.catalog.Register(reg); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.registry.keepOwner("echo"); n != 0 || len(h.registry.catalog.ByType("echo")) != 2 {
		t.Errorf("%d were withheld where both may provide it", n)
	}
	if err := h.SetPolicy(&Policy{}); err != nil || len(h.registry.catalog.ByType("echo")) != 1 {
		t.Errorf("where one may provide it: %v, %v", h.registry.catalog.ByType("echo"), err)
	}
}

// A client whose certificate is about to end, or has ended, goes on over the connection that it has, as long as it
// has no other one to show.
func TestAudit_USE34_AClientWithoutALaterCertificateKeepsItsConnection(t *testing.T) {
	t.Parallel()
	authority, err := NewAuthority(AuthorityConfig{})
	if err != nil {
		t.Fatal(err)
	}
	host, err := NewHost(&ServeConfig{Authority: authority, Policy: &Policy{Plugins: map[string]PluginPolicy{"api": {}}}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx, l) }()
	t.Cleanup(func() { stop(); <-served })
	var own atomic.Pointer[tls.Certificate]
	show := func() *tls.Config {
		cfg, err := authority.PluginTLS("api")
		if err != nil {
			t.Fatal(err)
		}
		cert, err := cfg.GetClientCertificate(&tls.CertificateRequestInfo{})
		if err != nil {
			t.Fatal(err)
		}
		own.Store(cert)
		return cfg
	}
	cfg := show()
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.Load(), nil }
	c, err := NewClient(ClientConfig{HostURL: "https://" + l.Addr().String(), SelfID: "api", TLS: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	end := own.Load().Leaf.NotAfter
	for _, now := range []time.Time{end.Add(-time.Second), end.Add(24 * time.Hour)} {
		if c.refresh(now); !c.link.Connected() {
			t.Fatalf("it gave its connection up at %v", now)
		}
	}
	show()
	if c.refresh(end.Add(48 * time.Hour)); c.link.Connected() {
		t.Error("it does not show the certificate that it has by now")
	}
}

// That a host does not take a certificate in TLS ends no watch: it is renewed. What it answers does.
func TestAudit_USE34_TLSRefusesNoWatch(t *testing.T) {
	t.Parallel()
	alert := &net.OpError{Op: remoteError, Err: errors.New("tls: expired certificate")}
	for err, want := range map[error]bool{
		refusedInTLS(alert, alert): false, errorf(connect.CodeUnavailable, "away"): false,
		ErrHandshakeRefused: true, errorf(connect.CodeNotFound, "unknown"): true,
	} {
		if got := refusedWatch(err); got != want {
			t.Errorf("%v is a refusal: %t", err, got)
		}
	}
}

// The next failure of TLS that a client logs says how many it did not.
func TestAudit_ATK14_AClientSaysHowMuchItsLogLeavesOut(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := &Client{cfg: ClientConfig{Logger: slog.New(slog.NewTextHandler(&out, nil))}, host: new(url.URL)}
	for _, c.warned = range []time.Time{{}, time.Now(), time.Now(), {}} {
		c.trustFailed(&trustError{err: io.EOF})
	}
	if got := out.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "not_logged=2") {
		t.Error(got)
	}
}
