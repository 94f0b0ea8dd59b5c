package host_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// changes are all procedures that change something, asked for a name that is nobody's.
func changes(c adminv1connect.AdminChangeServiceClient) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		adminv1connect.AdminChangeServiceRevokeProcedure: func(ctx context.Context) error {
			_, err := c.Revoke(ctx, connect.NewRequest(&adminv1.RevokeRequest{Who: &adminv1.RevokeRequest_RuntimeId{RuntimeId: "x"}}))
			return err
		},
		adminv1connect.AdminChangeServiceReadmitProcedure: func(ctx context.Context) error {
			_, err := c.Readmit(ctx, connect.NewRequest(&adminv1.ReadmitRequest{SelfId: "x"}))
			return err
		},
		adminv1connect.AdminChangeServiceDrainProcedure: func(ctx context.Context) error {
			_, err := c.Drain(ctx, connect.NewRequest(&adminv1.DrainRequest{RuntimeId: "x"}))
			return err
		},
		adminv1connect.AdminChangeServiceReplaceProcedure: func(ctx context.Context) error {
			_, err := c.Replace(ctx, connect.NewRequest(&adminv1.ReplaceRequest{Name: "x"}))
			return err
		},
		adminv1connect.AdminChangeServiceReloadPolicyProcedure: func(ctx context.Context) error {
			_, err := c.ReloadPolicy(ctx, connect.NewRequest(&adminv1.ReloadPolicyRequest{}))
			return err
		},
	}
}

// administeredBy returns the targets of what somebody changed with a procedure, by the audit.
func administeredBy(host *hosttest.Host, by *connectplugin.Client, procedure string) (targets []string) {
	for _, e := range host.Audit.Events() {
		if e.Kind == connectplugin.AuditAdministered && e.Procedure == procedure && e.RuntimeID == by.RuntimeID() {
			targets = append(targets, e.Target)
		}
	}
	return targets
}

// Who may only look changes nothing, by no procedure, and what changed nothing is in the audit of no change.
func TestAdmin_WhoLooksChangesNothing(t *testing.T) {
	t.Parallel()
	reloaded := false
	host := administered(t, func(c *connectplugin.ServeConfig) {
		c.Admin.LoadPolicy = func(context.Context) (*connectplugin.Policy, error) { reloaded = true; return operators(), nil }
	})
	viewer, operator := host.Enrol(t, "viewer", nil), host.Enrol(t, "operator", nil)
	for procedure, change := range changes(changer(host, viewer.HTTPClient())) {
		wantCode(t, procedure, change(t.Context()), connect.CodeNotFound)
		if targets := administeredBy(host, viewer, procedure); len(targets) != 0 || reloaded {
			t.Errorf("%s: %q, reloaded %v", procedure, targets, reloaded)
		}
	}
	all := changes(changer(host, operator.HTTPClient()))
	for procedure, want := range map[string]connect.Code{
		adminv1connect.AdminChangeServiceRevokeProcedure: connect.CodeNotFound, adminv1connect.AdminChangeServiceDrainProcedure: connect.CodeNotFound,
		adminv1connect.AdminChangeServiceReplaceProcedure: connect.CodeFailedPrecondition, // the host launches none
	} {
		wantCode(t, procedure, all[procedure](t.Context()), want)
		if targets := administeredBy(host, operator, procedure); len(targets) != 0 {
			t.Errorf("%s of nobody: %q", procedure, targets)
		}
	}
	for _, who := range []*adminv1.RevokeRequest{{}, {Who: &adminv1.RevokeRequest_SelfId{}}} {
		_, err := changer(host, operator.HTTPClient()).Revoke(t.Context(), connect.NewRequest(who))
		wantCode(t, "revoke without a name", err, connect.CodeInvalidArgument)
	}
}

// One instance is revoked by its runtime id: the other one stays, and the plugin may come again.
func TestAdmin_RevokesOneInstance(t *testing.T) {
	t.Parallel()
	host := administered(t, nil)
	operator := host.Enrol(t, "operator", nil)
	one, other := host.Enrol(t, "none", nil), host.Enrol(t, "none", nil)
	res, err := changer(host, operator.HTTPClient()).Revoke(t.Context(), connect.NewRequest(&adminv1.RevokeRequest{
		Who: &adminv1.RevokeRequest_RuntimeId{RuntimeId: one.RuntimeID()},
	}))
	if err != nil || res.Msg.GetEnded() != 1 {
		t.Errorf("Revoke: %v, %v", res, err)
	}
	there := func(id string) bool {
		return slices.ContainsFunc(host.Plugins(), func(p connectplugin.PluginStatus) bool { return p.RuntimeID == id })
	}
	if there(one.RuntimeID()) || !there(other.RuntimeID()) {
		t.Errorf("there are %+v", host.Plugins())
	}
	if err := other.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		t.Errorf("the other instance: %v", err)
	}
	if got := snapshot(t, reader(host, operator.HTTPClient())).GetRevoked(); len(got) != 0 {
		t.Errorf("revoked for good: %v", got)
	}
	host.Enrol(t, "none", nil)
	if got := administeredBy(host, operator, adminv1connect.AdminChangeServiceRevokeProcedure); !slices.Equal(got, []string{one.RuntimeID()}) {
		t.Errorf("audited for %q", got)
	}
}

// A plugin that is drained gets no new call, and who drains it hears when the last one is done.
func TestAdmin_DrainWaits(t *testing.T) {
	t.Parallel()
	host := administered(t, nil)
	operator := host.Enrol(t, "operator", nil)
	slow := hosttest.NewSlowLogger()
	called := callSlowly(t, host, slow)
	read := reader(host, operator.HTTPClient())
	runtimeID := snapshot(t, read).GetServices()[0].GetProviders()[0].GetRuntimeId()
	drained := make(chan error, 1)
	go func() {
		_, err := changer(host, operator.HTTPClient()).Drain(t.Context(), connect.NewRequest(&adminv1.DrainRequest{RuntimeId: runtimeID}))
		drained <- err
	}()
	hosttest.Eventually(t, "nobody provides it", func() bool { return len(snapshot(t, read).GetServices()) == 0 })
	for _, p := range snapshot(t, read).GetPlugins() {
		if p.GetRuntimeId() == runtimeID && p.GetInFlight() != 1 {
			t.Errorf("%d calls in flight", p.GetInFlight())
		}
	}
	select {
	case err := <-drained:
		t.Errorf("it is drained while a call is in flight: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(slow.Release)
	if err := <-called; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	for _, p := range snapshot(t, read).GetPlugins() {
		if told := p.GetHealthReason(); p.GetRuntimeId() == runtimeID && told != "drained: it provides nothing until it enrols again" {
			t.Errorf("an operator is told: %q", told)
		}
	}
}

// A launched plugin is replaced by the name of its launch, and the audit says by whom.
func TestAdmin_Replaces(t *testing.T) {
	t.Parallel()
	host := administered(t, nil)
	operator := host.Enrol(t, "operator", nil)
	change, read := changer(host, operator.HTTPClient()), reader(host, operator.HTTPClient())
	host.Launcher().Configure(map[string]connectplugin.PluginSpec{
		"logger": {Provides: []string{"logger"}, Plugin: hosttest.LoggerPlugin{}, ImplFactory: func() any { return &hosttest.RecordingLogger{} }},
	})
	if err := host.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	launched := func() (ids []string) {
		for _, p := range snapshot(t, read).GetPlugins() {
			if p.GetLaunch().GetName() == "logger" && p.GetLaunch().GetState() == "running" && p.GetProof() == adminv1.Proof_PROOF_HOST {
				ids = append(ids, p.GetRuntimeId())
			}
		}
		return ids
	}
	before := launched()
	if _, err := change.Replace(t.Context(), connect.NewRequest(&adminv1.ReplaceRequest{Name: "logger"})); err != nil {
		t.Fatalf("Replace: %v", err)
	}
	if after := launched(); len(before) != 1 || len(after) != 1 || before[0] == after[0] {
		t.Errorf("before %q, after %q", before, after)
	}
	if got := administeredBy(host, operator, adminv1connect.AdminChangeServiceReplaceProcedure); !slices.Equal(got, []string{"logger"}) {
		t.Errorf("audited for %q", got)
	}
	_, err := change.Replace(t.Context(), connect.NewRequest(&adminv1.ReplaceRequest{Name: "nobody"}))
	wantCode(t, "replace nobody", err, connect.CodeFailedPrecondition)
}

// Who asks for events gets those that the host has, after a sequence, and learns how many are lost.
func TestAdmin_ListEvents(t *testing.T) {
	t.Parallel()
	host := administered(t, nil)
	read := reader(host, host.Enrol(t, "viewer", nil).HTTPClient())
	list := func(after uint64) (*adminv1.ListEventsResponse, []uint64) {
		t.Helper()
		res, err := read.ListEvents(t.Context(), connect.NewRequest(&adminv1.ListEventsRequest{After: after}))
		if err != nil {
			t.Fatal(err)
		}
		var sequences []uint64
		for _, e := range res.Msg.GetEvents() {
			sequences = append(sequences, e.GetSequence())
		}
		return res.Msg, sequences
	}
	none := host.Enrol(t, "none", nil)
	host.Revoke(none.RuntimeID())
	all, sequences := list(0)
	if all.GetMissed() != 0 || len(sequences) < 3 || sequences[0] != 1 {
		t.Fatalf("%v", all)
	}
	last := all.GetEvents()[len(sequences)-1]
	if last.GetKind() != "ended" || last.GetRuntimeId() != none.RuntimeID() || last.GetSelfId() != "none" || last.GetReason() == "" || last.GetTime() == nil {
		t.Errorf("the last is %v", last)
	}
	if _, got := list(sequences[0]); !slices.Equal(got, sequences[1:]) {
		t.Errorf("after the first: %v of %v", got, sequences)
	}
	if rest, got := list(last.GetSequence()); len(got) != 0 || rest.GetMissed() != 0 {
		t.Errorf("after the last: %v, %d missed", got, rest.GetMissed())
	}
}

// Each bound of what is counted at a moment says how full it is, and who fills it most.
func TestAdmin_Limits(t *testing.T) {
	t.Parallel()
	host := administered(t, func(c *connectplugin.ServeConfig) {
		c.Limits.MaxOpenCalls, c.Limits.MaxConnections = 77, 78
		c.Policy.Plugins["unproven"] = connectplugin.PluginPolicy{AllowUnproven: true}
	})
	operator := host.Enrol(t, "operator", nil)
	host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
	host.Enrol(t, "unproven", func(c *connectplugin.ClientConfig) { c.Secret = nil })
	watcher := host.Enrol(t, "api", hosttest.Requiring("logger"))
	watch := hosttest.Watch(t, watcher, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "logger"})
	select {
	case <-watch.Events:
	case err := <-watch.End:
		t.Fatal(err)
	}
	got := map[string]*adminv1.LimitInfo{}
	for _, l := range snapshot(t, reader(host, operator.HTTPClient())).GetLimits() {
		if got[l.GetName()] != nil || l.GetMax() == 0 {
			t.Errorf("%v, and %v", l, got[l.GetName()])
		}
		got[l.GetName()] = l
	}
	for name, want := range map[string]*adminv1.LimitInfo{
		"MaxIdentities": {Used: 4}, "MaxIdentitiesPerSelfID": {Used: 1, Of: "api"}, "MaxIdentitiesPerPeer": {Used: 1, Of: "127.0.0.1"},
		"MaxGrantsPerIdentity": {}, "MaxRegistrations": {Used: 1}, "MaxRegistrationsPerType": {Used: 1, Of: "logger"},
		"MaxRegistrationsPerPlugin": {Used: 1, Of: "logger-"}, "MaxWatches": {Used: 1}, "MaxWatchesPerPlugin": {Used: 1, Of: watcher.RuntimeID()},
		"MaxOpenCalls": {Used: 1, Max: 77}, "MaxOpenCallsPerIdentity": {Used: 1, Of: ""}, "MaxPendingHandshakes": {}, "MaxPendingHandshakesPerPeer": {},
		"MaxConnections, of one plugin": {Used: 1, Max: 64}, "MaxWatches, of one plugin": {Used: 1, Of: "api", Max: 25_000},
		"MaxRegistrations, of one plugin": {Used: 1, Of: "logger", Max: 25_000}, "MaxGrantsPerIdentity, of one plugin": {Max: 1_024},
		"MaxOpenCalls, of one plugin": {Used: 1, Max: 77},
		"MaxWatches, of health":       {Max: 100_000}, "MaxWatchesPerPlugin, of health": {Max: 64}, "MaxWatches, of health, of one plugin": {Max: 25_000},
		"MaxLookups": {}, "MaxLookupsPerPlugin": {}, "MaxConnections": {Used: 2, Max: 78}, "MaxConnectionsPerPeer": {}, "Admin.Followers": {},
	} {
		l, more := got[name], uint64(0)
		if strings.HasPrefix(name, "MaxOpenCalls") || strings.HasPrefix(name, "MaxConnections") || strings.HasPrefix(name, "MaxWatches") {
			more = 4 // of plugins that are connected
		}
		if l.GetUsed() < want.GetUsed() || l.GetUsed() > want.GetUsed()+more || want.GetMax() != 0 && l.GetMax() != want.GetMax() || !strings.HasPrefix(l.GetOf(), want.GetOf()) {
			t.Errorf("%s: %v, want %v", name, l, want)
		}
		delete(got, name)
	}
	if len(got) != 0 {
		t.Errorf("and %v", got)
	}
}

// A check foresees where plugins would be reached, and what they would provide again.
func TestAdmin_CheckPolicyForeseesWhatComesBack(t *testing.T) {
	t.Parallel()
	may := func(provides bool, endpoint string) *connectplugin.Policy {
		p := operators()
		rules := hosttest.Allow(nil)
		if rules.AllowOwnAddress, rules.Endpoint = endpoint == "own", ""; endpoint != "own" {
			rules.Endpoint = endpoint
		}
		if provides {
			rules.Provides = []string{"logger"}
		}
		p.Plugins["logger"] = rules
		return p
	}
	next := may(true, "own")
	host := administered(t, func(c *connectplugin.ServeConfig) {
		c.Policy = next
		c.Admin.LoadPolicy = func(context.Context) (*connectplugin.Policy, error) { return next, nil }
	})
	operator := host.Enrol(t, "operator", nil)
	logger := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
	foresees := func(kinds ...adminv1.PolicyChange_Kind) {
		t.Helper()
		res, err := reader(host, operator.HTTPClient()).CheckPolicy(t.Context(), connect.NewRequest(&adminv1.CheckPolicyRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		got := map[adminv1.PolicyChange_Kind]int{}
		for _, c := range res.Msg.GetChanges() {
			if c.GetRuntimeId() == logger.Client.RuntimeID() {
				got[c.GetKind()]++
			}
		}
		for _, kind := range kinds {
			if got[kind] != 1 {
				t.Errorf("%v is not foreseen in %v", kind, res.Msg.GetChanges())
			}
		}
		if len(got) != len(kinds) {
			t.Errorf("foreseen: %v, want %v", res.Msg.GetChanges(), kinds)
		}
		hosttest.SetPolicy(t, host, next)
	}
	foresees()
	for _, p := range host.Plugins() {
		if p.SelfID == "logger" { // where it is already
			next = may(true, p.Endpoint)
		}
	}
	foresees()
	next = may(true, "own")
	foresees()
	next = may(true, "")
	foresees(adminv1.PolicyChange_KIND_ENDPOINT_ENDS)
	foresees()
	next = may(true, "own")
	foresees(adminv1.PolicyChange_KIND_ENDPOINT_SET)
	next = may(false, "https://127.0.0.1:1")
	foresees(adminv1.PolicyChange_KIND_ENDPOINT_SET, adminv1.PolicyChange_KIND_RIGHT_LOST, adminv1.PolicyChange_KIND_REGISTRATION_ENDS)
	next = may(true, "own")
	foresees(adminv1.PolicyChange_KIND_ENDPOINT_SET, adminv1.PolicyChange_KIND_RIGHT_GAINED, adminv1.PolicyChange_KIND_REGISTRATION_RETURNS)
	foresees()
}

// foreseen asks what a policy would change, and returns the changes that it would make but for the operator.
func foreseen(t *testing.T, host *hosttest.Host, operator *connectplugin.Client) (changes []string) {
	t.Helper()
	res, err := reader(host, operator.HTTPClient()).CheckPolicy(t.Context(), connect.NewRequest(&adminv1.CheckPolicyRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range res.Msg.GetChanges() {
		changes = append(changes, strings.TrimRight(strings.Join([]string{
			strings.TrimPrefix(c.GetKind().String(), "KIND_"), c.GetSelfId(), c.GetRight(), c.GetSubject(), c.GetReason(),
		}, " "), " "))
	}
	slices.Sort(changes)
	return changes
}

// loggerOf has a plugin provide the logger, as its own process.
func loggerOf(t *testing.T, host *hosttest.Host, selfID string) *hosttest.Plugin {
	t.Helper()
	return host.StartPlugin(t, selfID, func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
}

// What a check foresees of grants, of plugins that the host has in its own process, and of types that one
// plugin has or several, happens, and nothing else of these kinds.
func TestAdmin_CheckPolicyForeseesWhatOthersChange(t *testing.T) {
	t.Parallel()
	providing := hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"logger"} })
	policyOf := func(multiple bool, rules map[string]connectplugin.PluginPolicy) *connectplugin.Policy {
		p := operators()
		maps.Copy(p.Plugins, rules)
		if multiple {
			p.AllowMultiple = []string{"logger"}
		}
		return p
	}
	granted := hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Capabilities = []string{"clock"} })
	next := policyOf(true, map[string]connectplugin.PluginPolicy{"api": granted, "second": providing})
	broker := connectplugin.NewCapabilityBroker("")
	broker.RegisterCapability(hosttest.NewCapability(http.NotFoundHandler(), "clock", "1.0.0"))
	host := administered(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.CapabilityBroker = next, broker
		c.Admin.LoadPolicy = func(context.Context) (*connectplugin.Policy, error) { return next, nil }
	})
	operator, api := host.Enrol(t, "operator", nil), host.Enrol(t, "api", nil)
	if _, err := api.Capability(t.Context(), "clock", ""); err != nil {
		t.Fatal(err)
	}
	loggerOf(t, host, "logger")
	loggerOf(t, host, "second")
	for _, step := range []struct {
		multiple  bool
		rules     map[string]connectplugin.PluginPolicy
		foreseen  []string
		providers int
	}{
		{true, map[string]connectplugin.PluginPolicy{"api": granted, "second": providing}, nil, 2},
		{true, map[string]connectplugin.PluginPolicy{"second": providing}, []string{"GRANT_ENDS api Capabilities clock", "RIGHT_LOST api Capabilities clock"}, 2},
		{false, map[string]connectplugin.PluginPolicy{"second": providing}, []string{"REGISTRATION_ENDS second Provides logger"}, 1},
		{false, map[string]connectplugin.PluginPolicy{"second": providing}, nil, 1},
		{true, map[string]connectplugin.PluginPolicy{"second": providing}, []string{"REGISTRATION_RETURNS second Provides logger"}, 2},
		{false, map[string]connectplugin.PluginPolicy{"second": providing, "logger": hosttest.Allow(nil)}, []string{
			"REGISTRATION_ENDS logger Provides logger", "RIGHT_LOST logger Provides logger",
		}, 1},
		{false, map[string]connectplugin.PluginPolicy{"second": providing}, []string{"RIGHT_GAINED logger Provides logger"}, 1},
		{false, map[string]connectplugin.PluginPolicy{"second": hosttest.Allow(nil)}, []string{
			"REGISTRATION_ENDS second Provides logger", "REGISTRATION_RETURNS logger Provides logger", "RIGHT_LOST second Provides logger",
		}, 1},
	} {
		next = policyOf(step.multiple, step.rules)
		if got := foreseen(t, host, operator); !slices.Equal(got, step.foreseen) {
			t.Errorf("foreseen: %q, want %q", got, step.foreseen)
		}
		hosttest.SetPolicy(t, host, next)
		if got := host.Registry().GetAllProviders("logger"); len(got) != step.providers {
			t.Errorf("after %v %v: %d providers, want %d", step.multiple, step.rules, len(got), step.providers)
		}
	}
}

// A check foresees no other place for what the host launched, no end of what the host registered itself
// without policy, and the end of those in its own process that a policy does not name.
func TestAdmin_CheckPolicyKnowsWhatIsTheHosts(t *testing.T) {
	t.Parallel()
	next := operators()
	host := administered(t, func(c *connectplugin.ServeConfig) {
		c.Admin.LoadPolicy = func(context.Context) (*connectplugin.Policy, error) { return next, nil }
	})
	operator, none := host.Enrol(t, "operator", nil), host.Enrol(t, "none", nil)
	if _, err := host.Registry().RegisterService(t.Context(), hosttest.InProcess(none.RuntimeID(), &connectpluginv1.RegisterServiceRequest{
		ServiceType: "clock", Version: "1.0.0",
	})); err != nil {
		t.Fatal(err)
	}
	host.Launcher().Configure(map[string]connectplugin.PluginSpec{
		"logger": {Provides: []string{"logger"}, Plugin: hosttest.LoggerPlugin{}, ImplFactory: func() any { return &hosttest.RecordingLogger{} }},
	})
	if err := host.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	rules := operators().Plugins["logger"]
	rules.AllowOwnAddress, rules.Endpoint = false, "https://127.0.0.1:1"
	next.Plugins["logger"] = rules
	if got := foreseen(t, host, operator); len(got) != 0 {
		t.Errorf("foreseen: %q", got)
	}
	delete(next.Plugins, "logger")
	if got := foreseen(t, host, operator); !slices.Equal(got, []string{"IDENTITY_ENDS logger   the policy does not name it"}) {
		t.Errorf("foreseen: %q", got)
	}
	hosttest.SetPolicy(t, host, next)
	if loggers, clocks := host.Registry().GetAllProviders("logger"), host.Registry().GetAllProviders("clock"); len(loggers) != 0 || len(clocks) != 1 {
		t.Errorf("%d loggers and %d clocks are left", len(loggers), len(clocks))
	}
}

// What found no room among the providers of its type returns under no policy.
func TestAdmin_CheckPolicyKnowsWhatFoundNoRoom(t *testing.T) {
	t.Parallel()
	policyOf := func(logger connectplugin.PluginPolicy) *connectplugin.Policy {
		p := operators()
		p.Plugins["logger"], p.Plugins["second"], p.AllowMultiple = logger, operators().Plugins["logger"], []string{"logger"}
		return p
	}
	next := policyOf(operators().Plugins["logger"])
	host := administered(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Limits.MaxRegistrationsPerType = next, 1
		c.Admin.LoadPolicy = func(context.Context) (*connectplugin.Policy, error) { return next, nil }
	})
	operator := host.Enrol(t, "operator", nil)
	loggerOf(t, host, "logger")
	hosttest.SetPolicy(t, host, policyOf(hosttest.Allow(nil)))
	loggerOf(t, host, "second")
	hosttest.SetPolicy(t, host, next)
	if got, providers := foreseen(t, host, operator), host.Registry().GetAllProviders("logger"); len(got) != 0 || len(providers) != 1 {
		t.Errorf("foreseen: %q with %d providers", got, len(providers))
	}
}
