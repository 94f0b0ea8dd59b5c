package host_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// operators is a policy of an operator and of others, who may not be one.
func operators() *connectplugin.Policy {
	naming := func(names ...string) connectplugin.PluginPolicy {
		return hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins = names })
	}
	return &connectplugin.Policy{
		Plugins: map[string]connectplugin.PluginPolicy{
			"operator": naming(connectplugin.AdminRead, connectplugin.AdminChange),
			"viewer":   naming(connectplugin.AdminRead),
			"all":      naming("*"),
			"none":     hosttest.Allow(nil),
			"api":      hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"logger"} }),
			"logger":   hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"logger"} }),
		},
		Public: []string{"*"},
	}
}

func administered(t *testing.T, edit func(*connectplugin.ServeConfig)) *hosttest.Host {
	t.Helper()
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Admin = operators(), &connectplugin.AdminConfig{}
		if edit != nil {
			edit(c)
		}
	})
}

func reader(host *hosttest.Host, by connect.HTTPClient) adminv1connect.AdminReadServiceClient {
	return adminv1connect.NewAdminReadServiceClient(by, host.URL)
}

func changer(host *hosttest.Host, by connect.HTTPClient) adminv1connect.AdminChangeServiceClient {
	return adminv1connect.NewAdminChangeServiceClient(by, host.URL)
}

func snapshot(t *testing.T, c adminv1connect.AdminReadServiceClient) *adminv1.Snapshot {
	t.Helper()
	res, err := c.GetSnapshot(t.Context(), connect.NewRequest(&adminv1.GetSnapshotRequest{}))
	if err != nil {
		t.Fatalf("GetSnapshot: %v", err)
	}
	return res.Msg.GetSnapshot()
}

// Only a plugin whose policy names an admin service calls it: a wildcard is not enough, nor are
// public services and auth providers, and who may look may not change.
func TestAdmin_WhoMayCall(t *testing.T) {
	t.Parallel()
	host := administered(t, func(c *connectplugin.ServeConfig) {
		c.AuthProviders = []connectplugin.AuthProvider{connectplugin.NewTokenAuth("", func(string) (string, map[string]string, error) {
			return "human", nil, nil
		})}
	})
	human := doer(func(r *http.Request) (*http.Response, error) {
		r.Header.Set("Authorization", "Bearer a-token-of-a-human")
		return host.Stranger(t).Do(r)
	})
	for _, test := range []struct {
		name         string
		by           connect.HTTPClient
		read, change connect.Code
	}{
		{"operator", host.Enrol(t, "operator", nil).HTTPClient(), 0, connect.CodeNotFound},
		{"viewer", host.Enrol(t, "viewer", nil).HTTPClient(), 0, connect.CodeNotFound},
		{"wildcard", host.Enrol(t, "all", nil).HTTPClient(), connect.CodeNotFound, connect.CodeNotFound},
		{"nothing", host.Enrol(t, "none", nil).HTTPClient(), connect.CodeNotFound, connect.CodeNotFound},
		{"stranger", host.Stranger(t), connect.CodeUnauthenticated, connect.CodeUnauthenticated},
		{"whom an auth provider knows", human, connect.CodeUnauthenticated, connect.CodeUnauthenticated},
	} {
		_, err := reader(host, test.by).GetSnapshot(t.Context(), connect.NewRequest(&adminv1.GetSnapshotRequest{}))
		wantCode(t, test.name+" reads", err, test.read)
		_, err = changer(host, test.by).Revoke(t.Context(), connect.NewRequest(&adminv1.RevokeRequest{Who: &adminv1.RevokeRequest_RuntimeId{RuntimeId: "x"}}))
		wantCode(t, test.name+" changes", err, test.change)
	}
	if !slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
		return e.Kind == connectplugin.AuditDenied && e.SelfID == "all" && e.Right == connectplugin.RightHostPlugins && e.Subject == connectplugin.AdminChange
	}) {
		t.Errorf("no event says what policy would have to name: %v", host.Audit.Events())
	}
}

// A host that was told nothing has no admin service, and one that is read-only no changes.
func TestAdmin_IsOffUnlessAskedFor(t *testing.T) {
	t.Parallel()
	off := administered(t, func(c *connectplugin.ServeConfig) { c.Admin = nil })
	_, err := reader(off, off.Enrol(t, "operator", nil).HTTPClient()).GetSnapshot(t.Context(), connect.NewRequest(&adminv1.GetSnapshotRequest{}))
	wantCode(t, "off", err, connect.CodeNotFound)
	looked := administered(t, func(c *connectplugin.ServeConfig) { c.Admin.ReadOnly = true })
	operator := looked.Enrol(t, "operator", nil).HTTPClient()
	snapshot(t, reader(looked, operator))
	_, err = changer(looked, operator).Readmit(t.Context(), connect.NewRequest(&adminv1.ReadmitRequest{SelfId: "x"}))
	wantCode(t, "read-only", err, connect.CodeNotFound)
}

func wantCode(t *testing.T, what string, err error, want connect.Code) {
	t.Helper()
	if got := codeOf(err); got != want {
		t.Errorf("%s: %v, want code %d", what, err, want)
	}
}

// codeOf is the code of an error, zero for none.
func codeOf(err error) connect.Code {
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}

type doer func(*http.Request) (*http.Response, error)

// Do sends a request.
func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }

// The snapshot says who is there, how that was proved, what is provided, and how full the host is.
func TestAdmin_Snapshot(t *testing.T) {
	t.Parallel()
	host := administered(t, nil)
	operator := host.Enrol(t, "operator", nil)
	logger := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
	s := snapshot(t, reader(host, operator.HTTPClient()))
	proofs := map[string]adminv1.Proof{}
	for _, p := range s.GetPlugins() {
		proofs[p.GetSelfId()] = p.GetProof()
		if p.GetPeer() != "127.0.0.1" || time.Since(p.GetEnrolledAt().AsTime()) > time.Hour {
			t.Errorf("%s came from %q at %s", p.GetSelfId(), p.GetPeer(), p.GetEnrolledAt().AsTime())
		}
		if certified := p.GetSelfId() == "logger"; certified != p.GetCertificateExpiresAt().AsTime().After(time.Now()) {
			t.Errorf("%s: the certificate ends at %s", p.GetSelfId(), p.GetCertificateExpiresAt().AsTime())
		}
	}
	if proofs["operator"] != adminv1.Proof_PROOF_SECRET || proofs["logger"] != adminv1.Proof_PROOF_SECRET_AND_CERTIFICATE || len(proofs) != 2 {
		t.Errorf("proofs: %v", proofs)
	}
	if len(s.GetServices()) != 1 || s.GetServices()[0].GetProviders()[0].GetRuntimeId() != logger.Client.RuntimeID() {
		t.Errorf("services: %v", s.GetServices())
	}
	used := map[string]uint64{}
	for _, l := range s.GetLimits() {
		used[l.GetName()] = l.GetUsed()
		if l.GetMax() == 0 {
			t.Errorf("%s has no bound", l.GetName())
		}
	}
	if used["MaxIdentities"] != 2 || used["MaxRegistrations"] != 1 || used["MaxRegistrationsPerPlugin"] != 1 {
		t.Errorf("limits: %v", used)
	}
	cut, err := reader(host, operator.HTTPClient()).GetSnapshot(t.Context(), connect.NewRequest(&adminv1.GetSnapshotRequest{MaxEntries: 1}))
	if err != nil || len(cut.Msg.GetSnapshot().GetPlugins()) != 1 || cut.Msg.GetSnapshot().GetOmitted() != 1 {
		t.Errorf("bounded: %v, %v", cut, err)
	}
}

// The snapshot adds up who calls whom, and how that ends.
func TestAdmin_SnapshotHasTheCalls(t *testing.T) {
	t.Parallel()
	host := administered(t, nil)
	operator := host.Enrol(t, "operator", nil)
	logger := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
	api := host.Enrol(t, "api", hosttest.Requiring("logger"))
	conn, err := api.Service(t.Context(), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	calls := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL())
	for range 3 {
		if _, err := calls.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "m"})); err != nil {
			t.Fatal(err)
		}
	}
	read := reader(host, operator.HTTPClient())
	hosttest.Eventually(t, "three calls are added up", func() bool {
		edges := snapshot(t, read).GetEdges()
		return len(edges) == 1 && edges[0].GetCaller() == "api" && edges[0].GetProvider() == "logger" && edges[0].GetType() == "logger" &&
			edges[0].GetCalls() == 3 && edges[0].GetProviderFaults() == 0 && edges[0].GetSlow().AsDuration() > 0
	})
	gone := logger.Client.RuntimeID()
	host.Revoke(gone)
	// Past the connection, which answers by itself once it has heard that nobody provides the type.
	calls = loggerv1connect.NewLoggerClient(api.HTTPClient(), host.URL+"/services/logger/"+gone)
	_, err = calls.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "m"}))
	wantCode(t, "a call of nobody", err, connect.CodeUnavailable)
	hosttest.Eventually(t, "the failed one, too", func() bool {
		return slices.ContainsFunc(snapshot(t, read).GetEdges(), func(e *adminv1.EdgeInfo) bool {
			return e.GetCaller() == "api" && e.GetProviderFaults() == 1 && e.GetLastCode() == "unavailable"
		})
	})
}

// Each change happens, and the audit says who made it and to whom.
func TestAdmin_Changes(t *testing.T) {
	t.Parallel()
	loaded := operators()
	delete(loaded.Plugins, "none")
	host := administered(t, func(c *connectplugin.ServeConfig) {
		c.Admin.LoadPolicy = func(context.Context) (*connectplugin.Policy, error) { return loaded, nil }
	})
	operator := host.Enrol(t, "operator", nil)
	change, read := changer(host, operator.HTTPClient()), reader(host, operator.HTTPClient())
	logger := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
	if _, err := change.Drain(t.Context(), connect.NewRequest(&adminv1.DrainRequest{RuntimeId: logger.Client.RuntimeID()})); err != nil {
		t.Errorf("Drain: %v", err)
	}
	none := host.Enrol(t, "none", nil)
	revoked, err := change.Revoke(t.Context(), connect.NewRequest(&adminv1.RevokeRequest{Who: &adminv1.RevokeRequest_SelfId{SelfId: "none"}}))
	if err != nil || revoked.Msg.GetEnded() != 1 {
		t.Errorf("Revoke: %v, %v", revoked, err)
	}
	if err := none.ReportHealth(t.Context(), 1, "", nil); err == nil {
		t.Error("a revoked plugin is served")
	}
	if got := snapshot(t, read).GetRevoked(); !slices.Equal(got, []string{"none"}) {
		t.Errorf("revoked: %v", got)
	}
	if res, err := change.Readmit(t.Context(), connect.NewRequest(&adminv1.ReadmitRequest{SelfId: "none"})); err != nil || !res.Msg.GetWasRevoked() {
		t.Errorf("Readmit: %v, %v", res, err)
	}
	back := host.Enrol(t, "none", nil)
	if _, err := change.ReloadPolicy(t.Context(), connect.NewRequest(&adminv1.ReloadPolicyRequest{})); err != nil {
		t.Errorf("ReloadPolicy: %v", err)
	}
	if slices.ContainsFunc(snapshot(t, read).GetPlugins(), func(p *adminv1.PluginInfo) bool { return p.GetRuntimeId() == back.RuntimeID() }) {
		t.Error("a plugin that the reloaded policy does not name is there")
	}
	targets := map[string]string{}
	for _, e := range host.Audit.Events() {
		if e.Kind == connectplugin.AuditAdministered && e.SelfID == "operator" && e.RuntimeID == operator.RuntimeID() {
			targets[e.Procedure] = e.Target
		}
	}
	for procedure, target := range map[string]string{
		adminv1connect.AdminChangeServiceDrainProcedure:   logger.Client.RuntimeID(),
		adminv1connect.AdminChangeServiceRevokeProcedure:  "none",
		adminv1connect.AdminChangeServiceReadmitProcedure: "none", adminv1connect.AdminChangeServiceReloadPolicyProcedure: "",
	} {
		if got, ok := targets[procedure]; !ok || got != target {
			t.Errorf("%s is audited for %q (%v), want %q", procedure, got, ok, target)
		}
	}
}

// Who follows the host sees what is there, then what is decided and what changes, and stops when
// policy says so.
func TestAdmin_Follow(t *testing.T) {
	t.Parallel()
	host := administered(t, func(c *connectplugin.ServeConfig) { c.Admin.Followers = 1 })
	viewer := host.Enrol(t, "viewer", nil)
	ask := connect.NewRequest(&adminv1.FollowRequest{Interval: durationpb.New(time.Millisecond)})
	stream, err := reader(host, viewer.HTTPClient()).Follow(t.Context(), ask)
	if err != nil || !stream.Receive() {
		t.Fatalf("Follow: %v, %v", err, stream.Err())
	}
	defer func() { _ = stream.Close() }()
	first := stream.Msg()
	if len(first.GetSnapshot().GetPlugins()) != 1 || len(first.GetEvents()) == 0 {
		t.Fatalf("first: %v", first)
	}
	second, err := reader(host, viewer.HTTPClient()).Follow(t.Context(), connect.NewRequest(&adminv1.FollowRequest{}))
	if err == nil && second.Receive() {
		t.Error("more follow than the operator allows")
	}
	if err := errors.Join(err, second.Err()); connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "too many followers") {
		t.Errorf("who follows as well is told %v", err)
	}
	<-time.After(300 * time.Millisecond) // in which nothing is sent, as nothing changes
	none := host.Enrol(t, "none", nil)
	last := first.GetSnapshot()
	issued, sequence := false, first.GetEvents()[len(first.GetEvents())-1].GetSequence()
	for !issued || len(last.GetPlugins()) != 2 {
		if !stream.Receive() {
			t.Fatalf("the stream ended: %v", stream.Err())
		}
		if s := stream.Msg().GetSnapshot(); s != nil {
			if s.TakenAt, last.TakenAt = nil, nil; proto.Equal(s, last) {
				t.Errorf("nothing changed, and it is sent again: %v", s)
			}
			last = s
		}
		for _, e := range stream.Msg().GetEvents() {
			if e.GetSequence() <= sequence {
				t.Errorf("event %d after %d", e.GetSequence(), sequence)
			}
			sequence = e.GetSequence()
			issued = issued || e.GetKind() == "issued" && e.GetRuntimeId() == none.RuntimeID()
		}
	}
	next := operators()
	next.Plugins["viewer"] = hosttest.Allow(nil)
	hosttest.SetPolicy(t, host, next)
	for stream.Receive() {
		continue
	}
	wantCode(t, "after the policy", stream.Err(), connect.CodeNotFound)
}

// wantReason demands that a check says why an identity would end.
func wantReason(t *testing.T, m *adminv1.CheckPolicyResponse, runtimeID, want string) {
	t.Helper()
	for _, c := range m.GetChanges() {
		if c.GetRuntimeId() == runtimeID && c.GetKind() == adminv1.PolicyChange_KIND_IDENTITY_ENDS {
			if c.GetReason() != want {
				t.Errorf("%s would end since %q, want %q", runtimeID, c.GetReason(), want)
			}
			return
		}
	}
	t.Errorf("%s would not end: %v", runtimeID, m.GetChanges())
}

// What a check foresees is what the policy does.
func TestAdmin_CheckPolicy(t *testing.T) {
	t.Parallel()
	host := administered(t, nil)
	operator := host.Enrol(t, "operator", nil)
	none := host.Enrol(t, "none", nil)
	logger := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
	rules := func(names ...string) *adminv1.PluginRules {
		return &adminv1.PluginRules{HasSecret: true, AllowOwnAddress: true, HostPlugins: names}
	}
	document := &adminv1.PolicyDocument{Plugins: map[string]*adminv1.PluginRules{
		"operator": rules(connectplugin.AdminRead, connectplugin.AdminChange, "more"), "logger": rules(),
	}}
	res, err := reader(host, operator.HTTPClient()).CheckPolicy(t.Context(), connect.NewRequest(&adminv1.CheckPolicyRequest{Policy: document}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []*adminv1.PolicyChange{
		{Kind: adminv1.PolicyChange_KIND_IDENTITY_ENDS, RuntimeId: none.RuntimeID()},
		{Kind: adminv1.PolicyChange_KIND_RIGHT_GAINED, RuntimeId: operator.RuntimeID(), Right: "HostPlugins", Subject: "more"},
		{Kind: adminv1.PolicyChange_KIND_RIGHT_LOST, RuntimeId: logger.Client.RuntimeID(), Right: "Provides", Subject: "logger"},
		{Kind: adminv1.PolicyChange_KIND_REGISTRATION_ENDS, RuntimeId: logger.Client.RuntimeID(), Right: "Provides", Subject: "logger"},
	} {
		if !slices.ContainsFunc(res.Msg.GetChanges(), func(c *adminv1.PolicyChange) bool {
			return c.GetKind() == want.GetKind() && c.GetRuntimeId() == want.GetRuntimeId() && c.GetRight() == want.GetRight() && c.GetSubject() == want.GetSubject()
		}) {
			t.Errorf("%v is not foreseen in %v", want, res.Msg.GetChanges())
		}
	}
	wantReason(t, res.Msg, none.RuntimeID(), "the policy does not name it")
	if len(res.Msg.GetChanges()) != 4 {
		t.Errorf("%d changes: %v", len(res.Msg.GetChanges()), res.Msg.GetChanges())
	}
	if len(snapshot(t, reader(host, operator.HTTPClient())).GetPlugins()) != 3 {
		t.Error("the check changed something")
	}
	document.Plugins["none"], document.Plugins["operator"] = &adminv1.PluginRules{}, &adminv1.PluginRules{AllowUnproven: true}
	res, err = reader(host, operator.HTTPClient()).CheckPolicy(t.Context(), connect.NewRequest(&adminv1.CheckPolicyRequest{Policy: document}))
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, res.Msg, none.RuntimeID(), "it came with a secret, and the policy has none for it")
	wantReason(t, res.Msg, operator.RuntimeID(), "it came with a secret, and the policy has none for it")
	const most, more = 1_000, 7
	for n := range most + more {
		document.Plugins["logger"].HostPlugins = append(document.Plugins["logger"].HostPlugins, fmt.Sprint("more-", n))
	}
	res, err = reader(host, operator.HTTPClient()).CheckPolicy(t.Context(), connect.NewRequest(&adminv1.CheckPolicyRequest{Policy: document}))
	if err != nil || len(res.Msg.GetChanges()) != most || res.Msg.GetOmitted() < more {
		t.Errorf("%d changes and %d more: %v", len(res.Msg.GetChanges()), res.Msg.GetOmitted(), err)
	}
	document.Idempotent = []string{"no procedure"}
	_, err = reader(host, operator.HTTPClient()).CheckPolicy(t.Context(), connect.NewRequest(&adminv1.CheckPolicyRequest{Policy: document}))
	wantCode(t, "an invalid policy", err, connect.CodeInvalidArgument)
}

// A check warns of an endpoint that several live instances would share, and ends none of them; nor does
// the policy.
func TestAdmin_CheckPolicyWarnsOfOneEndpointForSeveral(t *testing.T) {
	t.Parallel()
	next := operators()
	host := administered(t, func(c *connectplugin.ServeConfig) {
		c.Admin.LoadPolicy = func(context.Context) (*connectplugin.Policy, error) { return next, nil }
	})
	operator := host.Enrol(t, "operator", nil)
	first := loggerOf(t, host, "logger")
	rules := operators().Plugins["logger"]
	rules.AllowOwnAddress, rules.Endpoint = false, "https://127.0.0.1:1"
	next.Plugins["logger"] = rules
	if got := foreseen(t, host, operator); !slices.Equal(got, []string{"ENDPOINT_SET logger  https://127.0.0.1:1"}) {
		t.Errorf("for one instance: %q", got)
	}
	second := loggerOf(t, host, "logger")
	const warned = "ENDPOINT_SET logger  https://127.0.0.1:1 one Endpoint for 2 live instances, which answer for each other there; " +
		"with AllowOwnAddress each has its own"
	if got := foreseen(t, host, operator); !slices.Equal(got, []string{warned, warned}) {
		t.Errorf("for two: %q", got)
	}
	hosttest.SetPolicy(t, host, next)
	if got := foreseen(t, host, operator); len(got) != 0 {
		t.Errorf("afterwards: %q", got)
	}
	for _, p := range []*hosttest.Plugin{first, second} {
		if !host.Registered("logger", p.Client.RuntimeID()) {
			t.Error("it ended one of two")
		}
	}
	if i := slices.IndexFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool { return e.Kind == connectplugin.AuditPolicyChanged }); i < 0 ||
		!strings.HasPrefix(host.Audit.Events()[i].Reason, "ended: 0 identities, 0 registrations, 2 endpoints") || host.Audit.Has(connectplugin.AuditEnded) {
		t.Errorf("the audit has %+v", host.Audit.Events())
	}
	next = operators()
	if got := foreseen(t, host, operator); len(got) != 2 || strings.Contains(got[0]+got[1], "one Endpoint") {
		t.Errorf("on the way back: %q", got)
	}
}
