package edge_test

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// numbered are service types.
func numbered(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "t" + strconv.Itoa(i)
	}
	return out
}

// fleetHost is a host of two plugins that may do everything, and have many instances.
func fleetHost(t *testing.T, limits connectplugin.Limits) *hosttest.Host {
	t.Helper()
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		all := []string{"*"}
		rights := hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides, p.Requires, p.Capabilities = all, all, all })
		c.Policy = &connectplugin.Policy{
			Plugins: map[string]connectplugin.PluginPolicy{"greedy": rights, "modest": rights}, AllowMultiple: []string{"*"},
		}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(http.NotFoundHandler(), echo.Type, "1.0.0"))
		c.Limits = limits
	})
}

// What all instances of a plugin hold together is a part of what there is, however many they are; each bound that is
// met has its name in the audit, and another plugin has its own.
func TestAudit_ATK14_AFleetHoldsAPartOfAll(t *testing.T) {
	t.Parallel()
	const each, instances = 20, 5
	types := numbered(each)
	for name, tt := range map[string]struct {
		limits connectplugin.Limits
		bound  string
		most   int // of all together
		take   func(t *testing.T, host *hosttest.Host, c *connectplugin.Client, i int) error
	}{
		"registrations": {
			connectplugin.Limits{MaxRegistrations: 160, MaxRegistrationsPerPlugin: each},
			"registrations of all instances of one plugin (a quarter of Limits.MaxRegistrations", 160 / 4,
			func(t *testing.T, _ *hosttest.Host, c *connectplugin.Client, i int) error {
				return hosttest.ErrorOf(hosttest.Register(t, c, types[i], "1.0.0"))
			},
		},
		"watches": {
			connectplugin.Limits{MaxWatches: 160, MaxWatchesPerPlugin: each},
			"watches of all instances of one plugin (a quarter of Limits.MaxWatches", 160 / 4,
			func(t *testing.T, host *hosttest.Host, c *connectplugin.Client, i int) error {
				return watchOnce(t, host, c, types[i])
			},
		},
		"watches of the host's health": {
			connectplugin.Limits{MaxWatches: 160, MaxWatchesPerPlugin: each},
			"watches of all instances of one plugin (a quarter of Limits.MaxWatches", 160 / 4,
			func(t *testing.T, host *hosttest.Host, c *connectplugin.Client, _ int) error {
				return hosttest.ErrorOf(healthWatch(t, host, c))
			},
		},
		"grants": {
			connectplugin.Limits{MaxGrantsPerIdentity: each / 2},
			"grants of all instances of one plugin (four times Limits.MaxGrantsPerIdentity", 4 * each / 2,
			func(t *testing.T, host *hosttest.Host, c *connectplugin.Client, _ int) error {
				return hosttest.ErrorOf(askGrant(t, host, c))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := fleetHost(t, tt.limits)
			take := func(c *connectplugin.Client) (took int) {
				for took < each {
					err := tt.take(t, host, c, took)
					if connect.CodeOf(err) == connect.CodeResourceExhausted {
						return took
					}
					if err != nil {
						t.Fatal(err)
					}
					took++
				}
				return took
			}
			var all int
			fleet := make([]*connectplugin.Client, instances)
			for i := range fleet {
				fleet[i] = host.Enrol(t, "greedy", hosttest.Declaring(types, types))
			}
			for _, c := range fleet {
				all += take(c)
			}
			if all != tt.most {
				t.Errorf("of %d instances %d are held, want %d", len(fleet), all, tt.most)
			}
			if events, _ := limitedOf(host, tt.bound); len(events) == 0 || events[0].SelfID != "greedy" {
				t.Errorf("the audit does not name the bound: %v", host.Audit.Events())
			}
			if n := take(host.Enrol(t, "modest", hosttest.Declaring(types, types))); n == 0 || n > each {
				t.Errorf("another plugin has %d", n)
			}
			host.Revoke(fleet[0].RuntimeID())
			hosttest.Eventually(t, "one that ended makes room", func() bool { return take(fleet[instances-1]) > 0 })
		})
	}
}

// So it is with their connections: those beyond count against their address, as those of a stranger do.
func TestAudit_ATK14_AFleetHoldsAPartOfTheConnections(t *testing.T) {
	t.Parallel()
	const each, all, instances = 6, 32, 2
	const bound = "connections of all instances of one plugin (a quarter of Limits.MaxConnections"
	host := fleetHost(t, connectplugin.Limits{MaxConnections: all, MaxConnectionsPerPeer: each})
	open := func(selfID string) {
		c := host.Enrol(t, selfID, nil)
		for range each - 1 {
			conn := wire.Dial(t, host)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, host.URL+"/connectplugin.v1.PluginLifecycle/ReportHealth", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = hosttest.IdentityHeader(c.RuntimeID(), c.RuntimeToken())
			r.Header.Set("Content-Type", "application/proto")
			resp, err := conn.Client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
	}
	for range instances {
		open("greedy")
	}
	events, _ := limitedOf(host, bound)
	if len(events) != 1 || events[0].SelfID != "greedy" {
		t.Errorf("the audit does not name the bound once: %v", host.Audit.Events())
	}
	open("modest")
	if events, _ := limitedOf(host, bound); len(events) != 1 {
		t.Errorf("another plugin meets it: %v", events)
	}
}

// What all instances of a plugin change, and renew, is as much as four of them may, or as many as the square root of
// their number where that is more.
func TestAudit_ATK14_AFleetChangesAsMuchAsSome(t *testing.T) {
	t.Parallel()
	const most = 8
	for name, tt := range map[string]struct {
		limits connectplugin.Limits
		act    func(t *testing.T, c *connectplugin.Client) error
	}{
		"changes": {
			connectplugin.Limits{HandshakesPerSecond: 1_000, ChangesPerSecond: 1e-9, ChangeBurst: most},
			func(t *testing.T, c *connectplugin.Client) error {
				return c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
			},
		},
		"renewals": {
			connectplugin.Limits{HandshakesPerSecond: 1e-9, HandshakeBurst: most},
			func(t *testing.T, c *connectplugin.Client) error { return c.Connect(t.Context()) },
		},
	} {
		for instances, times := range map[int]int{7: 4, 36: 6} {
			t.Run(name+" of "+strconv.Itoa(instances), func(t *testing.T) {
				t.Parallel()
				host := fleetHost(t, tt.limits)
				fleet := make([]*connectplugin.Client, instances)
				for i := range fleet {
					fleet[i] = host.Enrol(t, "greedy", nil)
				}
				did := func(c *connectplugin.Client) (n int) {
					for ; n <= most; n++ {
						err := tt.act(t, c)
						if connect.CodeOf(err) == connect.CodeResourceExhausted {
							break
						}
						if err != nil {
							t.Fatal(err)
						}
					}
					return n
				}
				all := 0
				for _, c := range fleet {
					all += did(c)
				}
				if all != times*most {
					t.Errorf("%d instances did %d, want %d", instances, all, times*most)
				}
				if n := did(host.Enrol(t, "modest", nil)); n != most {
					t.Errorf("another plugin did %d, want %d", n, most)
				}
			})
		}
	}
}

// A fleet of 100 replicas that behave has room for all that it needs with the default limits.
func TestAudit_ATK14_AnHonestFleetHasRoom(t *testing.T) {
	t.Parallel()
	const instances, registrations, watches, grants, connections = 100, 3, 5, 3, 2
	host := fleetHost(t, connectplugin.Limits{HandshakeBurst: 2 * instances})
	types := numbered(max(registrations, watches))
	for range instances {
		c := host.Enrol(t, "greedy", hosttest.Declaring(types[:registrations], types[:watches]))
		for _, name := range types[:registrations] {
			if _, err := hosttest.Register(t, c, name, "1.0.0"); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range types[:watches] {
			if err := watchOnce(t, host, c, name); err != nil {
				t.Fatal(err)
			}
		}
		for range grants {
			if _, err := askGrant(t, host, c); err != nil {
				t.Fatal(err)
			}
		}
		for range connections - 1 {
			conn := wire.Dial(t, host)
			req := hosttest.WithCredentials(&connectpluginv1.DiscoverServiceRequest{ServiceType: types[0]}, c.RuntimeID(), c.RuntimeToken())
			if _, err := connectpluginv1connect.NewServiceRegistryClient(conn.Client, host.URL).DiscoverService(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, e := range host.Audit.Events() {
		if e.Kind == connectplugin.AuditLimited {
			t.Errorf("it met a bound: %v", e)
		}
	}
}

// What providers send ahead on calls of all instances of a plugin comes from the same purses: the fifth has that of the
// first.
func TestAudit_ATK14_AFleetSharesWhatIsUnread(t *testing.T) {
	t.Parallel()
	const (
		taken  = 1 << 20   // by the caller
		narrow = 160 << 10 // that the host and the provider keep where nothing may be sent ahead
		one    = 600 << 10 // of what one stream takes that may be sent ahead
	)
	r := newRig(t, func(l *connectplugin.Limits) { l.MaxUnreadBytesPerIdentity = one }, nil)
	pours := make([]counted, 5) // by whose call it is
	provider := r.StartPlugin(t, "sibling", func(c *connectplugin.PluginServerConfig) {
		c.Client.Metadata.Provides = hosttest.Provides("type-0")
		c.Services = []connectplugin.PluginService{{Type: "type-0", Version: "1.0.0", Path: echo.Base, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			pours[r.URL.Path[len(echo.Unary)]-'0'].ServeHTTP(w, r)
		})}}
	})
	fleet := make([]*connectplugin.Client, len(pours))
	for i := range fleet {
		fleet[i] = r.Enrol(t, "registrar", hosttest.Requiring("type-0"))
	}
	pour := func(i int) (ahead func() int64) {
		f := frames(t, r)
		if err := f.WriteWindowUpdate(0, taken-(64<<10-1)); err != nil {
			t.Fatal(err)
		}
		ask(t, f, r.Addr(), "/services/type-0/"+provider.Client.RuntimeID()+echo.Unary+strconv.Itoa(i), fleet[i])
		go func() {
			for err := error(nil); err == nil; {
				_, err = f.ReadFrame()
			}
		}()
		return func() int64 { return pours[i].written.Load() - taken }
	}
	wide := func(i int) {
		ahead := pour(i)
		hosttest.Eventually(t, "instance "+strconv.Itoa(i)+" has as much as one ahead", func() bool { return ahead() > narrow })
	}
	wide(0)
	ahead := pour(4)
	hosttest.Eventually(t, "the provider waits", func() bool {
		last := ahead()
		time.Sleep(hosttest.Moment)
		return last > 0 && last == ahead()
	})
	if n := ahead(); n > narrow {
		t.Errorf("of the fifth %d KiB are ahead", n>>10)
	}
	wide(1)
}

// What the registrations of all instances of a plugin make watchers receive comes from the same purses.
func TestAudit_ATK23_AFleetSharesWhatIsAnnounced(t *testing.T) {
	t.Parallel()
	const metadata = 3000
	host := fleetHost(t, connectplugin.Limits{AnnouncedBytesPerSecond: 1, AnnouncedBytesBurst: metadata + 100})
	fleet, types := make([]*connectplugin.Client, 5), numbered(5)
	for i := range fleet {
		fleet[i] = host.Enrol(t, "greedy", hosttest.Providing(types[i]))
	}
	watcher := host.Enrol(t, "modest", hosttest.Requiring(types...))
	register := func(i int) *hosttest.Watching {
		w := hosttest.Watch(t, watcher, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: types[i]})
		w.Next(t)
		err := hosttest.RegisterWith(t, fleet[i], &connectpluginv1.RegisterServiceRequest{
			ServiceType: types[i], Version: "1.0.0", EndpointPath: "/a/", Metadata: map[string]string{"k": strings.Repeat("x", metadata)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	for i := range fleet[:4] { // each has its own
		register(i).Until(t, hosttest.IsState(hosttest.Available))
	}
	last := register(4)
	hosttest.Eventually(t, "the audit has whose watchers wait", func() bool {
		events, _ := limitedOf(host, "(Limits.AnnouncedBytesPerSecond")
		return len(events) == 1 && events[0].RuntimeID == fleet[4].RuntimeID()
	})
	if n := len(last.Events); n != 0 {
		t.Errorf("its watcher got %d events", n)
	}
}

// Watches are bounded as such, and take nothing of the calls that all instances of a plugin may have open: these go on,
// however many of those there are. Large heads of theirs do, for they are held.
func TestAudit_ATK14_WatchesAreNoOpenCalls(t *testing.T) {
	t.Parallel()
	const each, instances, calls = 20, 3, 2 // four times as many of these for all
	host := fleetHost(t, connectplugin.Limits{MaxWatches: 1000, MaxWatchesPerPlugin: each, MaxOpenCallsPerIdentity: calls})
	types := numbered(each)
	var last *connectplugin.Client
	for range instances {
		last = host.Enrol(t, "greedy", hosttest.Requiring(types...))
		for _, one := range types {
			if err := watchOnce(t, host, last, one); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := hosttest.ErrorOf(askGrant(t, host, last)); err != nil {
		t.Errorf("a call beside %d watches: %v", each*instances, err)
	}
	other := host.Enrol(t, "greedy", hosttest.Requiring(types...))
	request := connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: types[0]})
	maps.Copy(request.Header(), longHead())
	for i := range calls + 1 {
		stream, err := connectpluginv1connect.NewServiceRegistryClient(other.HTTPClient(), host.URL).WatchService(t.Context(), request)
		if err == nil && !stream.Receive() {
			err = stream.Err()
		}
		if room := i < calls/2; room != (err == nil) || err != nil && connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("watch %d with a large head: %v, want room: %t", i+1, err, room)
		}
	}
}
