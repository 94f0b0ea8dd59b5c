package watch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// follower is a consumer of Client.WatchService that checks what it is given.
type follower struct {
	mu    sync.Mutex
	last  *connectplugin.ServiceEvent
	seen  int
	wrong string
	err   error
}

func (f *follower) follow(ctx context.Context, c *connectplugin.Client, serviceType string) {
	for e, err := range c.WatchService(ctx, serviceType) {
		f.take(e, err)
	}
}

func (f *follower) take(e *connectplugin.ServiceEvent, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.err = err
		return
	}
	switch last := f.last; {
	case last == nil, e.Resync && e.Missed == 0: // the first, or another life of the host
	case e.Sequence != last.Sequence+e.Missed+1, (e.Missed > 0) != e.Resync:
		f.wrong = fmt.Sprintf("%+v came after %+v", e, last)
	}
	f.last, f.seen = e, f.seen+1
}

func (f *follower) at() (sequence uint64, state connectpluginv1.ServiceState, seen int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		return 0, 0, 0
	}
	return f.last.Sequence, f.last.State, f.seen
}

// check fails the test if anything was wrong.
func (f *follower) check(t testing.TB, who string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wrong != "" || f.err != nil && !errors.Is(f.err, context.Canceled) {
		t.Errorf("%s: %s %v", who, f.wrong, f.err)
	}
}

// sequence is the number of the type's last event.
func sequence(t testing.TB, host *hosttest.Host, c *connectplugin.Client) uint64 {
	t.Helper()
	w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
	defer w.Cancel()
	return w.Next(t).GetSequence()
}

// A thousand watchers whose connections are cut at random moments all end with
// the last state, saw no state twice and none out of order. It runs beside no other
// test, which it would starve.
func TestAudit_REG10_ThousandWatchersCutAtRandomConverge(t *testing.T) {
	const clients, watchesEach, changes = 20, 50, 24
	host, f := watchHost(t, func(c *connectplugin.ServeConfig) {
		c.Logger = nil
		c.Limits.ChangesPerSecond, c.Limits.ChangeBurst = 1e6, 1e6
	})
	want := sequence(t, host, host.Enrol(t, "c", hosttest.Requiring("a"))) + changes
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	var proxies []*hosttest.Proxy
	var enrolled []*connectplugin.Client // all of them before the first watches
	for range clients {
		p := hosttest.NewProxy(t, host)
		proxies = append(proxies, p)
		enrolled = append(enrolled, host.Enrol(t, "c", func(cfg *connectplugin.ClientConfig) {
			cfg.HostURL, cfg.Logger = p.URL, nil
			cfg.Metadata.Requires = hosttest.Requires("a")
		}))
	}
	var followers []*follower
	for _, c := range enrolled {
		for range watchesEach {
			fl := &follower{}
			followers = append(followers, fl)
			following.Go(func() { fl.follow(ctx, c, "a") })
		}
	}
	hosttest.Eventually(t, "all watches are open", func() bool {
		return host.Usage().Watches == clients*watchesEach
	})
	cuts := 0
	for range changes {
		f.flap(1)
		if rand.IntN(2) == 0 {
			proxies[rand.IntN(clients)].Cut()
			cuts++
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) // now the watchers keep up, now they do not
	}
	events := 0
	for i, fl := range followers {
		hosttest.Eventually(t, fmt.Sprintf("watcher %d converges", i), func() bool {
			got, state, _ := fl.at()
			return got == want && state == f.state()
		})
		fl.check(t, fmt.Sprintf("watcher %d", i))
		_, _, seen := fl.at()
		events += seen
	}
	t.Logf("%d watchers, %d cuts of %d watches each, %d changes: %d events", len(followers), cuts, watchesEach, changes, events)
}

// following is a client behind a proxy that follows type "a".
func following(t *testing.T, host *hosttest.Host) (*hosttest.Proxy, *connectplugin.Client, *follower) {
	t.Helper()
	p := hosttest.NewProxy(t, host)
	c := host.Enrol(t, "c", func(cfg *connectplugin.ClientConfig) {
		cfg.HostURL = p.URL
		cfg.Metadata.Requires = hosttest.Requires("a")
	})
	ctx, cancel := context.WithCancel(t.Context())
	fl := &follower{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fl.follow(ctx, c, "a")
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return p, c, fl
}

// Client.WatchService outlives cuts and the loss of its identity, and yields each
// state once.
func TestAudit_REG10_ClientWatchReconnects(t *testing.T) {
	t.Parallel()
	host, f := watchHost(t, nil)
	p, c, fl := following(t, host)
	probe := host.Enrol(t, "c", hosttest.Requiring("a"))
	converges := func(why string) int {
		t.Helper()
		want := sequence(t, host, probe)
		hosttest.Eventually(t, why, func() bool {
			got, state, _ := fl.at()
			return got == want && state == f.state()
		})
		fl.check(t, why)
		_, _, seen := fl.at()
		return seen
	}
	converges("the watch begins")
	f.flap(3)
	first := converges("it follows")
	p.Cut()
	f.flap(4)
	second := converges("after a cut")
	if second != first+4 {
		t.Errorf("%d states were yielded of 4", second-first)
	}
	p.Cut()
	hosttest.Eventually(t, "it is back", func() bool { return host.Usage().Watches == 1 })
	if again := converges("after a cut without a change"); again != second {
		t.Errorf("%d states were yielded again", again-second)
	}
	host.Revoke(c.RuntimeID())
	f.flap(3)
	if third := converges("after the identity was lost"); third != second+3 {
		t.Errorf("%d states were yielded of 3", third-second)
	}
}

// When another host takes the place of the one that is gone, the watch goes on
// with what that one knows, and says that it begins anew.
func TestAudit_REG10_ClientWatchFollowsToAnotherHost(t *testing.T) {
	t.Parallel()
	host, _ := watchHost(t, nil)
	p, _, fl := following(t, host)
	hosttest.Eventually(t, "the watch begins", func() bool { _, _, seen := fl.at(); return seen > 0 })
	other := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
		cfg.Authority, cfg.Policy = host.Authority, hosttest.Rights(map[string][2][]string{"c": {nil, {"a"}}})
	})
	p.Aim(other)
	p.Cut()
	hosttest.Eventually(t, "the new host's state", func() bool {
		fl.mu.Lock()
		defer fl.mu.Unlock()
		return fl.last.Resync && fl.last.Missed == 0 && fl.last.State == hosttest.Unavailable
	})
	fl.check(t, "afterwards")
}

// The iterator ends, with a reason, where going on is of no use.
func TestClient_WatchServiceEnds(t *testing.T) {
	t.Parallel()
	host, _ := watchHost(t, nil)
	ends := func(ctx context.Context, c *connectplugin.Client, serviceType string, during func()) error {
		var last error
		for _, err := range c.WatchService(ctx, serviceType) {
			if last = err; err == nil {
				during()
			}
		}
		return last
	}
	c := host.Enrol(t, "c", hosttest.Requiring("a", "forbidden"))
	if err := ends(t.Context(), c, "forbidden", func() {}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("forbidden: %v", err)
	}
	if err := ends(t.Context(), c, "not a type", func() {}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("malformed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := ends(ctx, c, "a", cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	withdraw := func() {
		hosttest.SetPolicy(t, host, hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {}}))
	}
	if err := ends(t.Context(), c, "a", withdraw); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("withdrawn: %v", err)
	}
	hosttest.SetPolicy(t, host, hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}}))
	if err := ends(t.Context(), c, "a", func() { _ = c.Close() }); !errors.Is(err, connectplugin.ErrClientClosed) {
		t.Errorf("closed: %v", err)
	}
	for range host.Enrol(t, "c", hosttest.Requiring("a")).WatchService(t.Context(), "a") {
		break // must not hang
	}
}

// A connection to a service follows its provider from one to the next, through
// cuts, and keeps to its constraint.
func TestClient_ServiceFollowsTheProvider(t *testing.T) {
	t.Parallel()
	policy := hosttest.Rights(map[string][2][]string{"one": {{"logger"}, nil}, "two": {{"logger"}, nil}, "c": {nil, {"logger"}}})
	policy.AllowMultiple = []string{"logger"}
	host := hosttest.Start(t, hosttest.WithPolicy(policy))
	p := hosttest.NewProxy(t, host)
	start := func(selfID, version string) (*hosttest.Plugin, *hosttest.RecordingLogger) {
		l := &hosttest.RecordingLogger{}
		return host.StartPlugin(t, selfID, func(c *connectplugin.PluginServerConfig) {
			s := hosttest.LoggerService(l)
			s.Version = version
			c.Services = []connectplugin.PluginService{s}
		}), l
	}
	one, oneLog := start("one", "1.0.0")
	c := host.Enrol(t, "c", func(cfg *connectplugin.ClientConfig) {
		cfg.HostURL, cfg.Metadata.Requires = p.URL, hosttest.Requires("logger")
	})
	first, err := c.Service(t.Context(), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	newer, err := c.Service(t.Context(), "logger", ">=2")
	if err != nil {
		t.Fatal(err)
	}
	call := func(s *connectplugin.ServiceConn, message string) error {
		_, err := loggerv1connect.NewLoggerClient(s.HTTPClient(), s.BaseURL()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: message}))
		return err
	}
	if err := call(first, "a"); err != nil {
		t.Fatal(err)
	}
	if err := call(newer, "a"); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("no provider satisfies the constraint: %v", err)
	}
	if state := newer.State(); state != connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE {
		t.Errorf("the type is %v, which is there in another version", state)
	}
	_, err = c.RegistryClient().DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{
		ServiceType: "logger", MinVersion: ">=2",
	}))
	if connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("discovery of a version that nobody has: %v", err)
	}
	_, twoLog := start("two", "2.0.0")
	hosttest.Eventually(t, "a provider that satisfies the constraint", func() bool { return call(newer, "b") == nil })
	if err := call(first, "c"); err != nil {
		t.Errorf("the first goes on: %v", err)
	}
	p.Cut()
	one.Stop(t)
	hosttest.Eventually(t, "the first moves over", func() bool { return call(first, "d") == nil })
	got1, _, _ := oneLog.Got()
	got2, _, _ := twoLog.Got()
	if !slices.Equal(got1, []string{"a", "c"}) || !slices.Contains(got2, "b") || !slices.Contains(got2, "d") {
		t.Errorf("one got %q, two got %q", got1, got2)
	}
}

// A host that has no room for another watch says so, and its client says it on: in its log, and to whoever waited in vain.
func TestClient_WatchWithoutRoom(t *testing.T) {
	t.Parallel()
	host, _ := watchHost(t, func(c *connectplugin.ServeConfig) { c.Limits.MaxWatchesPerPlugin = 1 })
	var log hosttest.Buffer
	c := host.Enrol(t, "c", func(cfg *connectplugin.ClientConfig) {
		cfg.Metadata.Requires = hosttest.Requires("a")
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	conn, err := c.Service(t.Context(), "a", "")
	if err != nil {
		t.Fatal(err)
	}
	const said, line = "too many open watches", "the host refuses a watch for now"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watched := make(chan error, 1)
	go func() {
		for _, err := range c.WatchService(ctx, "a") {
			watched <- err
			return
		}
	}()
	hosttest.Eventually(t, "the log says it", func() bool { return strings.Contains(log.String(), line) })
	cancel()
	if err := <-watched; connect.CodeOf(err) != connect.CodeResourceExhausted || !errors.Is(err, context.Canceled) {
		t.Errorf("the end of a watch that was never granted: %v", err)
	}
	if n := strings.Count(log.String(), line); n != 1 || !strings.Contains(log.String(), said) {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	conn.Close() // and there is room again
	if _, err := c.Service(t.Context(), "a", ""); err != nil {
		t.Errorf("when there is room: %v", err)
	}
}
