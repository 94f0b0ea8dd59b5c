package connectplugin

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/fullest"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/seats"
	"github.com/masegraye/connect-plugin-go/internal/tally"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// census is a snapshot that is being taken.
type census struct {
	host     *Host
	max      int
	snapshot *adminv1.Snapshot
	book     *policy.Book

	identities             int
	perSelf, perPeer       map[string]int
	services               map[string]*adminv1.ServiceInfo
	perPlugin, watchesEach map[string]int
	watches                int
	mostGrants             int
	grantsOf               string

	accounts  map[string]*tokenstore.Identity // one of each
	accountOf map[string]string               // by runtime id
	grantsIn  map[string]int                  // by account
}

// snapshot returns what the host holds, at most so many entries of each kind.
func (h *Host) snapshot(entries uint32) *adminv1.Snapshot {
	c := &census{
		host: h, max: int(min(cmp.Or(entries, defaultAdminEntries), maxAdminEntries)), book: h.hub.rules.Load(),
		snapshot: &adminv1.Snapshot{
			TakenAt: timestamppb.Now(), Revoked: h.hub.launches.AllBarred(),
			Host: &adminv1.HostInfo{
				Version: moduleVersion(), StartedAt: timestamppb.New(h.made), Address: h.Addr(), ReloadsPolicy: h.cfg.Admin.LoadPolicy != nil,
			},
		},
		perSelf: map[string]int{}, perPeer: map[string]int{}, services: map[string]*adminv1.ServiceInfo{},
		perPlugin: map[string]int{}, watchesEach: map[string]int{},
		accounts: map[string]*tokenstore.Identity{}, accountOf: map[string]string{}, grantsIn: map[string]int{},
	}
	c.takeServices()
	c.takePlugins()
	c.takeWatches()
	c.takeTraffic()
	c.takeLimits()
	return c.snapshot
}

// keep returns as many of a sorted list as are told, and counts the others.
func keep[T any](c *census, all []T) []T {
	if len(all) > c.max {
		c.snapshot.Omitted += wireCount(len(all) - c.max)
		all = all[:c.max]
	}
	return all
}

func (c *census) takePlugins() {
	launched := map[string]*adminv1.PluginInfo{}
	c.host.upperMu.Lock()
	upper := c.host.upper
	c.host.upperMu.Unlock()
	if upper != nil {
		launched = upper.launches()
	}
	var all []*tokenstore.Identity
	c.host.hub.store.Each(func(id *tokenstore.Identity) bool {
		c.identities++
		c.perSelf[id.SelfID()]++
		if id.Peer() != "" && !id.Proven() {
			c.perPeer[id.Peer()]++
		}
		of := account(id)
		c.accounts[of], c.accountOf[id.RuntimeID()] = id, of
		all = append(all, id)
		return true
	})
	slices.SortFunc(all, func(a, b *tokenstore.Identity) int {
		return cmp.Or(cmp.Compare(a.SelfID(), b.SelfID()), cmp.Compare(a.RuntimeID(), b.RuntimeID()))
	})
	for i, id := range all {
		l := launched[id.RuntimeID()]
		delete(launched, id.RuntimeID())
		c.takeGrants(id)
		if i >= c.max {
			c.snapshot.Omitted++
			continue
		}
		info := c.plugin(id)
		info.Launch = l.GetLaunch()
		c.snapshot.Plugins = append(c.snapshot.GetPlugins(), info)
	}
	for _, key := range slices.Sorted(maps.Keys(launched)) {
		c.snapshot.Plugins = append(c.snapshot.GetPlugins(), launched[key])
	}
}

// plugin describes one identity.
func (c *census) plugin(id *tokenstore.Identity) *adminv1.PluginInfo {
	h, d := c.host, declared(id)
	rights := c.book.Rights(subjectOf(id))
	report, _ := h.registry.catalog.Health(id.RuntimeID())
	endpoint, _ := h.registry.catalog.Endpoint(id.RuntimeID())
	info := &adminv1.PluginInfo{
		RuntimeId: id.RuntimeID(), SelfId: valid(id.SelfID()), SelfVersion: valid(versionOf(id)),
		EnrolledAt: timestamppb.New(d.enrolled), TokenIssuedAt: timestamppb.New(id.IssuedAt()), TokenExpiresAt: timestamppb.New(id.ExpiresAt()),
		Peer: valid(addrOf(id)), Proof: h.hub.proofShown(id), Certificate: valid(d.certIdentity), Endpoint: valid(endpoint),
		MayProvide: validAll(rights.Provides), MayRequire: validAll(rights.Requires), MayUse: validAll(rights.Capabilities),
		Health: adminHealth(report.Health), InFlight: wireCount(h.router.inFlight(id.RuntimeID())),
	}
	if !d.certEnds.IsZero() {
		info.CertificateExpiresAt = timestamppb.New(d.certEnds)
	}
	if rules := c.book.Of(subjectOf(id)); rules != nil {
		info.MayCall = validAll(rules.HostPlugins.List())
	}
	for _, reg := range h.registry.catalog.ByRuntime(id.RuntimeID()) {
		info.Services = append(info.GetServices(), valid(reg.Type))
	}
	slices.Sort(info.GetServices())
	info.Drained = isDrained(id, len(info.GetServices()))
	info.HealthReason = printable(valid(h.registry.healthReason(id, report.Reason, len(info.GetServices()))))
	if f := d.failure.Load(); f != nil {
		info.LastError, info.LastErrorAt = valid(f.what), timestamppb.New(f.at)
	}
	return info
}

func validAll(texts []string) []string {
	out := make([]string, 0, len(texts))
	for _, s := range texts {
		out = append(out, valid(s))
	}
	return out
}

// adminHealth is a health as the admin service says it; the numbers are the same.
func adminHealth(health catalog.Health) adminv1.Health { return adminv1.Health(wireHealth(health)) }

// proofShown says how a plugin proved its name at its last handshake.
func (h *hub) proofShown(id *tokenstore.Identity) adminv1.Proof {
	d := declared(id)
	if id.Peer() == "" {
		return adminv1.Proof_PROOF_HOST
	}
	known := h.rules.Load().Match(d.selfID, d.certIdentity)
	certified := known.ByCertificate || h.launchOf(id) != nil
	if !certified && known.Rules != nil {
		certified, _ = (&handshake{hub: h, cfg: h.settings()}).certificateStands(id, known.Rules)
	}
	switch secret := len(d.secret) > 0; {
	case secret && certified:
		return adminv1.Proof_PROOF_SECRET_AND_CERTIFICATE
	case secret:
		return adminv1.Proof_PROOF_SECRET
	case certified:
		return adminv1.Proof_PROOF_CERTIFICATE
	}
	return adminv1.Proof_PROOF_NONE
}

func (c *census) takeGrants(id *tokenstore.Identity) {
	n := 0
	for _, g := range c.host.hub.store.Grants(id.RuntimeID()) {
		n++
		if len(c.snapshot.GetGrants()) >= c.max {
			c.snapshot.Omitted++
			continue
		}
		c.snapshot.Grants = append(c.snapshot.GetGrants(), &adminv1.GrantInfo{
			GrantId: g.ID, Capability: g.Type, RuntimeId: id.RuntimeID(), ExpiresAt: timestamppb.New(g.ExpiresAt),
		})
	}
	c.grantsIn[c.accountOf[id.RuntimeID()]] += n
	if n > c.mostGrants {
		c.mostGrants, c.grantsOf = n, id.RuntimeID()
	}
}

func (c *census) takeServices() {
	cat := c.host.registry.catalog
	cat.EachProviding(func(reg *catalog.Registration) bool {
		s := c.services[reg.Type]
		if s == nil {
			s = &adminv1.ServiceInfo{Type: valid(reg.Type)}
			c.services[reg.Type] = s
		}
		report, _ := cat.Health(reg.RuntimeID)
		s.Providers = append(s.GetProviders(), &adminv1.ProviderInfo{
			RuntimeId: reg.RuntimeID, SelfId: valid(reg.SelfID), Version: valid(reg.Version), Path: valid(reg.Path),
			Health: adminHealth(report.Health),
		})
		c.perPlugin[reg.RuntimeID]++
		return true
	})
	left := c.max
	for _, name := range keep(c, slices.Sorted(maps.Keys(c.services))) {
		s := c.services[name]
		slices.SortFunc(s.GetProviders(), func(a, b *adminv1.ProviderInfo) int { return cmp.Compare(a.GetRuntimeId(), b.GetRuntimeId()) })
		told := &adminv1.ServiceInfo{Type: s.GetType(), Providers: s.GetProviders()}
		if n := len(told.GetProviders()); n > left {
			c.snapshot.Omitted += wireCount(n - left)
			told.Providers = told.GetProviders()[:left]
		}
		left -= len(told.GetProviders())
		c.snapshot.Services = append(c.snapshot.GetServices(), told)
	}
}

func (c *census) takeWatches() {
	var all []*adminv1.WatchInfo
	c.host.registry.catalog.EachWatch(func(w catalog.Watching) bool {
		c.watches++
		c.watchesEach[w.RuntimeID]++
		all = append(all, &adminv1.WatchInfo{Type: valid(w.Type), RuntimeId: w.RuntimeID})
		return true
	})
	slices.SortFunc(all, func(a, b *adminv1.WatchInfo) int {
		return cmp.Or(cmp.Compare(a.GetType(), b.GetType()), cmp.Compare(a.GetRuntimeId(), b.GetRuntimeId()))
	})
	c.snapshot.Watches = keep(c, all)
}

// takeTraffic says who calls whom.
func (c *census) takeTraffic() {
	rows := c.host.hub.settings().traffic.Rows()
	for _, r := range keep(c, rows) {
		e := &adminv1.EdgeInfo{
			Caller: valid(r.Caller), Provider: valid(r.Provider), Type: valid(r.Type), Calls: r.Calls,
			CallerFaults: r.Ended[tally.Caller], ProviderFaults: r.Ended[tally.Provider], Canceled: r.Ended[tally.Canceled],
			Median: durationpb.New(r.Quantile(median)), Slow: durationpb.New(r.Quantile(slow)),
			RequestBytes: wireBytes(r.Request), ResponseBytes: wireBytes(r.Response), LastCallAt: timestamppb.New(r.LastCall),
		}
		if r.LastCode != 0 {
			e.LastCode, e.LastErrorAt = connect.Code(r.LastCode).String(), timestamppb.New(r.LastError)
		}
		c.snapshot.Edges = append(c.snapshot.GetEdges(), e)
	}
}

// Which part of the calls took no longer than Median and Slow say.
const (
	median = 0.5
	slow   = 0.99
)

func wireBytes(n int64) uint64 { return uint64(max(n, 0)) }

// takeLimits says how full the bounds are, of those that each plugin, type or address has the fullest one.
func (c *census) takeLimits() {
	l, host := c.host.cfg.Limits, c.host
	registrations, perType := 0, map[string]int{}
	for name, s := range c.services {
		registrations += len(s.GetProviders())
		perType[name] = len(s.GetProviders())
	}
	delete(c.watchesEach, "") // the host's own have no bound
	self, instances := fullest.Count(c.perSelf)
	mostInstances := l.MaxIdentitiesPerSelfID
	if rules := c.book.Match(self, "").Rules; rules != nil && rules.MaxInstances > 0 {
		mostInstances = rules.MaxInstances
	}
	c.limit("MaxIdentities", c.identities, l.MaxIdentities, "")
	c.limit("MaxIdentitiesPerSelfID", instances, mostInstances, self)
	c.each("MaxIdentitiesPerPeer", l.MaxIdentitiesPerPeer)(fullest.Count(c.perPeer))
	c.limit("MaxGrantsPerIdentity", c.mostGrants, l.MaxGrantsPerIdentity, c.grantsOf)
	c.limit("MaxRegistrations", registrations, l.MaxRegistrations, "")
	c.each("MaxRegistrationsPerPlugin", l.MaxRegistrationsPerPlugin)(fullest.Count(c.perPlugin))
	c.each("MaxRegistrationsPerType", l.MaxRegistrationsPerType)(fullest.Count(perType))
	c.limit("MaxWatches", c.watches, l.MaxWatches, "")
	c.each("MaxWatchesPerPlugin", l.MaxWatchesPerPlugin)(fullest.Count(c.watchesEach))
	c.limit("MaxWatches"+ofHealth, host.hub.watching.Len(), l.MaxWatches, "")
	c.each("MaxWatchesPerPlugin"+ofHealth, l.MaxWatchesPerPlugin)(host.hub.watching.Fullest())
	c.limit("MaxOpenCalls", host.hub.open.Len(), l.MaxOpenCalls, "")
	c.each("MaxOpenCallsPerIdentity", l.MaxOpenCallsPerIdentity)(host.hub.open.Fullest())
	c.limit("MaxPendingHandshakes", host.hub.enrolling.Len(), l.MaxPendingHandshakes, "")
	c.each("MaxPendingHandshakesPerPeer", l.MaxPendingHandshakesPerPeer)(host.hub.enrolling.Fullest())
	lookups, asker, each := host.hub.lookups.Running()
	c.limit("MaxLookups", lookups, l.MaxLookups, "")
	c.limit("MaxLookupsPerPlugin", each, l.MaxLookupsPerPlugin, asker)
	c.takeConnections(&l)
	c.takeTogether(&l)
	c.limit("Admin.Followers", len(host.followers), cap(host.followers), "")
}

// takeConnections says how full the host's listener is; of several, which no host needs, the fullest one. A
// host that is served by a server of the user's own has none.
func (c *census) takeConnections(l *Limits) {
	c.host.mu.Lock()
	open := slices.Collect(maps.Keys(c.host.edges))
	c.host.mu.Unlock()
	if len(open) == 0 {
		return
	}
	all, address, each := 0, "", 0
	var kin string
	var ofKin int
	for _, e := range open {
		all = max(all, e.Len())
		if key, n := e.Fullest(); n > each {
			address, each = key, n
		}
		if key, n := e.FullestKin(kinOfAccount); n > ofKin {
			kin, ofKin = key, n
		}
	}
	c.limit("MaxConnections", all, l.MaxConnections, "")
	c.limit("MaxConnectionsPerPeer", each, l.MaxConnectionsPerPeer, address)
	c.share("MaxConnections", kin, ofKin, seats.Bound{Most: l.MaxConnections, Each: min(maxHeld, l.MaxConnectionsPerPeer)}, fewConnections)
}

// together follows the name of a bound that is about all instances of one plugin, or all identities of one address that
// proved nothing.
const together = ", of one plugin"

// ofHealth follows the name of a bound of watches where it is about those of the host's health, and with them those whose
// message is not there yet: they are counted apart from those of services.
const ofHealth = ", of health"

// takeTogether says how full the bounds are of what the identities of one account have together, of the fullest account.
func (c *census) takeTogether(l *Limits) {
	of, n := fullest.Count(c.byAccount(c.perPlugin))
	c.share("MaxRegistrations", of, n, seats.Bound{Most: l.MaxRegistrations, Each: l.MaxRegistrationsPerPlugin}, catalog.Few)
	of, n = fullest.Count(c.byAccount(c.watchesEach))
	c.share("MaxWatches", of, n, seats.Bound{Most: l.MaxWatches, Each: l.MaxWatchesPerPlugin}, catalog.Few)
	of, n = fullest.Count(c.grantsIn)
	c.limit("MaxGrantsPerIdentity"+together, n, c.host.hub.store.MostGrants(c.kin(of)), accountName(of))
	open, watching := map[string]int{}, map[string]int{}
	for of, id := range c.accounts {
		holds := c.host.hub.shareOf(id).holds
		open[of], watching[of] = holds.open.Len(), holds.watching.Len()
	}
	of, n = fullest.Count(watching)
	c.share("MaxWatches"+ofHealth, of, n, seats.Bound{Most: l.MaxWatches, Each: l.MaxWatchesPerPlugin}, fewWatching)
	of, n = fullest.Count(open)
	c.limit("MaxOpenCalls"+together, n, min(l.openOfFleet(), l.MaxOpenCalls), accountName(of))
}

// share adds a bound of what an account has of what there is for all.
func (c *census) share(name, of string, used int, bound seats.Bound, few int) {
	c.limit(name+together, used, seats.Together(bound, few, c.kin(of)), accountName(of))
}

// kin is how many identities an account has.
func (c *census) kin(of string) int {
	if id := c.accounts[of]; id != nil {
		return c.host.hub.store.Kin(id)
	}
	return 0
}

// byAccount adds up what is counted by runtime id. What has none of those that live is left out.
func (c *census) byAccount(each map[string]int) map[string]int {
	sums := map[string]int{}
	for runtimeID, n := range each {
		if of, ok := c.accountOf[runtimeID]; ok {
			sums[of] += n
		}
	}
	return sums
}

// accountName is an account as operators know it.
func accountName(of string) string {
	if name, ok := strings.CutPrefix(of, pluginAccount); ok {
		return name
	}
	return of
}

// limit adds a bound of so many.
func (c *census) limit(name string, used, most int, of string) {
	c.snapshot.Limits = append(c.snapshot.GetLimits(), &adminv1.LimitInfo{
		Name: name, Used: uint64(max(used, 0)), Max: uint64(max(most, 0)), Of: valid(of),
	})
}

// each returns what adds a bound of somebody's.
func (c *census) each(name string, most int) func(of string, used int) {
	return func(of string, used int) { c.limit(name, used, most, of) }
}

// listeners are those on which a host is served.
type listeners map[*edge.Listener]struct{}

// listens notes a listener until ended is called, so that its connections are counted.
func (h *Host) listens(l *edge.Listener) (ended func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.edges == nil {
		h.edges = listeners{}
	}
	h.edges[l] = struct{}{}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.edges, l)
	}
}

// localURL returns the base URL at which programs on this machine reach a host that listens
// on an address, nil where it is none of the network.
func localURL(cfg *ServeConfig, addr net.Addr) *string {
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return nil
	}
	ip := at.Addr().Unmap()
	switch {
	case ip.IsUnspecified() && ip.Is4():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case ip.IsUnspecified():
		ip = netip.IPv6Loopback()
	}
	name := ip.String()
	if len(cfg.Hosts) > 0 && !slices.Contains(cfg.Hosts, withoutZone(name)) {
		name = cfg.Hosts[0] // the only names under which the host answers
	}
	u := url.URL{Scheme: "https", Host: net.JoinHostPort(name, strconv.Itoa(int(at.Port())))}
	if cfg.AllowInsecure {
		u.Scheme = "http"
	}
	text := u.String()
	return &text
}

// probeTargets returns the plugins that have to show life.
func (h *Host) probeTargets() []probeTarget {
	var targets []probeTarget
	h.hub.store.Each(func(id *tokenstore.Identity) bool {
		endpoint, _ := h.registry.catalog.Endpoint(id.RuntimeID())
		report, _ := h.lifecycle.reported(id.RuntimeID())
		provides := len(h.registry.catalog.ByRuntime(id.RuntimeID())) > 0
		t := probeTarget{
			id:     id,
			leased: id.Peer() != "" && h.hub.launchOf(id) == nil && (!provides || !id.Attached()) && h.isToldOfLeases(id),
		}
		if provides {
			t.reported = report.At
		}
		if provides || h.lifecycle.isSilent(id.RuntimeID()) { // to learn whether it lives after all
			t.endpoint = endpoint
		}
		if t.leased || t.endpoint != "" || !t.reported.IsZero() {
			targets = append(targets, t)
		}
		return true
	})
	return targets
}

// isToldOfLeases reports whether a plugin knows that it has to show life, as those of the
// first version do not: theirs ends for silence only where the operator set a lease.
func (h *Host) isToldOfLeases(id *tokenstore.Identity) bool {
	return declared(id).modern || h.cfg.HealthProbe.Lease > 0
}
