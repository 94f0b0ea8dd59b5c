package connectplugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/probes"
	"github.com/masegraye/connect-plugin-go/internal/tally"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// Bounds of what the admin services tell at once.
const (
	defaultAdminEntries = 1_000
	maxAdminEntries     = 10_000
	maxAdminBatch       = 512 // events in one message
	defaultFollow       = time.Second
	minFollow           = 200 * time.Millisecond
)

// adminPlugin is the name of an admin service. Only plugins call it whose policy names it.
type adminPlugin string

// adminRoutes are those of the admin services, none where the operator wants none.
func (h *Host) adminRoutes(opts ...connect.HandlerOption) []route {
	if h.cfg.Admin == nil {
		return nil
	}
	h.followers, h.leaving = make(chan struct{}, h.cfg.Admin.Followers), make(chan struct{})
	path, handler := adminv1connect.NewAdminReadServiceHandler((*adminReader)(h), opts...)
	routes := []route{adminPlugin(AdminRead).route(path, handler)}
	if !h.cfg.Admin.ReadOnly {
		path, handler = adminv1connect.NewAdminChangeServiceHandler((*adminChanger)(h), opts...)
		routes = append(routes, adminPlugin(AdminChange).route(path, handler))
	}
	return routes
}

func (n adminPlugin) route(path string, service http.Handler) route {
	return route{prefix: path, subject: string(n), identify: observed(n.identify), unary: quickProcedure, next: service}
}

// quickProcedure reports whether a call of an admin service has the deadline of unary calls. The
// others wait for something.
func quickProcedure(path string) bool {
	switch path {
	case adminv1connect.AdminReadServiceFollowProcedure, adminv1connect.AdminChangeServiceDrainProcedure,
		adminv1connect.AdminChangeServiceReplaceProcedure, adminv1connect.AdminChangeServiceReloadPolicyProcedure:
		return false
	}
	return true
}

// identify admits a plugin whose policy names the service, and nobody else: no wildcard, no
// public service and no auth provider lets anybody in.
func (n adminPlugin) identify(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial) {
	ctx, c, no := h.authenticate(ctx, p, r)
	if no != nil {
		return ctx, admission{}, no
	}
	allowed := func(b *policy.Book) bool { return b.MayAdminister(subjectOf(c.id), string(n)) }
	if !allowed(h.rules.Load()) {
		no = h.hide(c.id, RightHostPlugins, string(n))
		no.reason += `; "*" does not stand for it`
		return ctx, admission{}, no
	}
	return ctx, admission{caller: c, budget: h.requestBudget(c), allowed: allowed}, nil
}

// adminReader tells what a host holds.
type adminReader Host

// GetSnapshot returns what the host holds now.
func (a *adminReader) GetSnapshot(_ context.Context, req *connect.Request[adminv1.GetSnapshotRequest]) (*connect.Response[adminv1.GetSnapshotResponse], error) {
	s := (*Host)(a).snapshot(req.Msg.GetMaxEntries())
	return connect.NewResponse(&adminv1.GetSnapshotResponse{Snapshot: s}), nil
}

// ListEvents returns audit events that the host still has.
func (a *adminReader) ListEvents(_ context.Context, req *connect.Request[adminv1.ListEventsRequest]) (*connect.Response[adminv1.ListEventsResponse], error) {
	events, missed := (*Host)(a).eventsAfter(req.Msg.GetAfter())
	return connect.NewResponse(&adminv1.ListEventsResponse{Events: events, Missed: missed}), nil
}

// Follow sends what changes, at most once per interval.
func (a *adminReader) Follow(ctx context.Context, req *connect.Request[adminv1.FollowRequest], stream *connect.ServerStream[adminv1.FollowResponse]) error {
	h := (*Host)(a)
	select {
	case h.followers <- struct{}{}:
		defer func() { <-h.followers }()
	default:
		h.hub.auditCall(ctx, AuditLimited, req.Spec().Procedure, "Admin.Followers")
		return busyFor(errTooManyFollow, seatWait)
	}
	interval := defaultFollow
	if d := req.Msg.GetInterval(); d != nil {
		interval = max(d.AsDuration(), minFollow)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	f := follower{host: h, entries: req.Msg.GetMaxEntries(), after: req.Msg.GetAfter()}
	if req.Msg.GetCalls() {
		if f.calls = h.hub.settings().calls.Follow(); f.calls == nil {
			return busyFor(errTooManyFollow, seatWait)
		}
		defer f.calls.Close()
	}
	for {
		if err := f.send(stream); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-h.leaving:
			return connect.NewError(connect.CodeUnavailable, errShuttingDown)
		case <-ctx.Done():
			return endOfStream(ctx)
		}
	}
}

// endStreams ends those of the host's own services, which would last longer than the host.
func (h *Host) endStreams() {
	h.registry.catalog.CloseWatches()
	h.health.Shutdown()
	if h.leaving != nil {
		close(h.leaving)
	}
	h.hub.streams.CutOffSoon()
}

// CheckPolicy says what a policy would change, or without one what ReloadPolicy would.
func (a *adminReader) CheckPolicy(ctx context.Context, req *connect.Request[adminv1.CheckPolicyRequest]) (*connect.Response[adminv1.CheckPolicyResponse], error) {
	h := (*Host)(a)
	p, err := h.policyToCheck(ctx, req.Msg.GetPolicy())
	if err != nil {
		return nil, err
	}
	if err := p.validateFor(h.cfg.AllowInsecure); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New(printable(valid(err.Error()))))
	}
	changes, omitted := h.foresee(compilePolicy(p, h.cfg.Authority != nil))
	return connect.NewResponse(&adminv1.CheckPolicyResponse{Changes: changes, Omitted: wireCount(omitted)}), nil
}

// policyToCheck returns the policy that somebody asks about: one that is told, or else what
// AdminConfig.LoadPolicy would load now.
func (h *Host) policyToCheck(ctx context.Context, told *adminv1.PolicyDocument) (*Policy, error) {
	switch {
	case told != nil:
		return h.policyOf(told), nil
	case h.cfg.Admin.LoadPolicy == nil:
		return nil, connect.NewError(connect.CodeFailedPrecondition, errReloadsNothing)
	default:
		p, err := h.loadPolicy(ctx)
		if err != nil {
			h.cfg.Logger.Warn("the policy that an operator asks about was not loaded", logged(err)...)
			return nil, connect.NewError(connect.CodeFailedPrecondition, errNotLoaded)
		}
		return p, nil
	}
}

// follower is how far somebody who follows a host has got.
type follower struct {
	host    *Host
	entries uint32
	after   uint64
	last    *adminv1.Snapshot
	calls   *tally.Follower[RoutedCall] // nil for who does not want single ones
}

// send sends what changed since it was called last, if anything did.
func (f *follower) send(stream *connect.ServerStream[adminv1.FollowResponse]) error {
	s := f.host.snapshot(f.entries)
	taken := s.GetTakenAt()
	s.TakenAt = nil // no change
	m := &adminv1.FollowResponse{}
	changed := f.last == nil || !proto.Equal(s, f.last)
	if changed {
		f.last = proto.CloneOf(s)
		s.TakenAt = taken
		m.Snapshot = s
	}
	m.Events, m.Missed = f.host.eventsAfter(f.after)
	if n := len(m.GetEvents()); n > 0 {
		f.after = m.GetEvents()[n-1].GetSequence()
	}
	f.takeCalls(m)
	if !changed && len(m.GetEvents()) == 0 && len(m.GetCalls()) == 0 {
		return nil
	}
	return stream.Send(m)
}

// takeCalls adds the calls that ended meanwhile.
func (f *follower) takeCalls(m *adminv1.FollowResponse) {
	if f.calls == nil {
		return
	}
	for len(m.GetCalls()) < maxAdminBatch {
		select {
		case call := <-f.calls.C:
			m.Calls = append(m.GetCalls(), wireCall(&call))
			continue
		default:
		}
		break
	}
	m.CallsMissed = f.calls.Missed()
}

func wireCall(c *RoutedCall) *adminv1.CallInfo {
	out := &adminv1.CallInfo{
		EndedAt: timestamppb.New(c.Start.Add(c.Duration)), Caller: valid(c.Caller), CallerRuntimeId: valid(c.CallerRuntimeID),
		Provider: valid(c.Provider), ProviderRuntimeId: valid(c.ProviderRuntimeID), Type: valid(c.Type), Procedure: valid(c.Procedure),
		Protocol: string(c.Protocol), Duration: durationpb.New(c.Duration),
		RequestBytes: wireBytes(c.RequestBytes), ResponseBytes: wireBytes(c.ResponseBytes),
	}
	if c.Code != 0 {
		out.Code = c.Code.String()
	}
	return out
}

// eventsAfter returns the next events after a sequence, and how many are lost.
func (h *Host) eventsAfter(sequence uint64) ([]*adminv1.AuditEvent, uint64) {
	events, first, missed := h.hub.settings().audit.recent.After(sequence, maxAdminBatch)
	out := make([]*adminv1.AuditEvent, 0, len(events))
	for i := range events {
		out = append(out, wireAudit(&events[i], first+uint64(i)))
	}
	return out, missed
}

func wireAudit(e *AuditEvent, sequence uint64) *adminv1.AuditEvent {
	return &adminv1.AuditEvent{
		Sequence: sequence, Time: timestamppb.New(e.Time), Kind: string(e.Kind), Peer: valid(e.Peer),
		RuntimeId: valid(e.RuntimeID), SelfId: valid(e.SelfID), Procedure: valid(e.Procedure),
		Subject: valid(e.Subject), Right: string(e.Right), RegistrationId: valid(e.Registration), GrantId: valid(e.Grant),
		Target: valid(e.Target), AuthProvider: valid(e.AuthProvider), Reason: valid(e.Reason),
		Count: wireCount(max(e.Count, 1)), Refusal: e.Kind.isRefusal(),
	}
}

// valid is a text as a message can hold it.
func valid(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

// wireCount is a count as messages have them.
func wireCount(n int) uint32 { return uint32(min(max(n, 0), math.MaxInt32)) }

// adminChanger changes what a host holds.
type adminChanger Host

// Revoke ends an identity, or those of a plugin.
func (a *adminChanger) Revoke(ctx context.Context, req *connect.Request[adminv1.RevokeRequest]) (*connect.Response[adminv1.RevokeResponse], error) {
	h, ended := (*Host)(a), 0
	// It is told first: an operator may end its own instance, and with that this call.
	switch who := req.Msg.GetWho().(type) {
	case *adminv1.RevokeRequest_RuntimeId:
		target := who.RuntimeId
		if _, ok := h.hub.store.Lookup(target); !ok {
			return nil, connect.NewError(connect.CodeNotFound, errNotAlive)
		}
		h.administered(ctx, req.Spec(), target)
		if h.Revoke(target) {
			ended = 1
		}
	case *adminv1.RevokeRequest_SelfId:
		target := who.SelfId
		if target == "" {
			return nil, connect.NewError(connect.CodeInvalidArgument, errNobodyNamed)
		}
		if c, ok := callerFrom(ctx); ok && (c.id.SelfID() == target || declared(c.id).selfID == target) {
			return nil, connect.NewError(connect.CodeFailedPrecondition, errRevokesItself)
		}
		h.administered(ctx, req.Spec(), target)
		ended = h.RevokeSelf(target)
	default:
		return nil, connect.NewError(connect.CodeInvalidArgument, errNobodyNamed)
	}
	return connect.NewResponse(&adminv1.RevokeResponse{Ended: wireCount(ended)}), nil
}

// Readmit lets a plugin in again.
func (a *adminChanger) Readmit(ctx context.Context, req *connect.Request[adminv1.ReadmitRequest]) (*connect.Response[adminv1.ReadmitResponse], error) {
	h := (*Host)(a)
	h.administered(ctx, req.Spec(), req.Msg.GetSelfId())
	return connect.NewResponse(&adminv1.ReadmitResponse{WasRevoked: h.Readmit(req.Msg.GetSelfId())}), nil
}

// Drain takes a plugin's services out and waits for its calls.
func (a *adminChanger) Drain(ctx context.Context, req *connect.Request[adminv1.DrainRequest]) (*connect.Response[adminv1.DrainResponse], error) {
	h, runtimeID := (*Host)(a), req.Msg.GetRuntimeId()
	if _, ok := h.hub.store.Lookup(runtimeID); !ok {
		return nil, connect.NewError(connect.CodeNotFound, errNotAlive)
	}
	h.administered(ctx, req.Spec(), runtimeID)
	if err := h.Drain(ctx, runtimeID); err != nil {
		if ctx.Err() != nil {
			return nil, endOfStream(ctx)
		}
		return nil, connect.NewError(connect.CodeNotFound, errNotAlive)
	}
	return connect.NewResponse(&adminv1.DrainResponse{}), nil
}

// Replace replaces a plugin that the host launched.
func (a *adminChanger) Replace(ctx context.Context, req *connect.Request[adminv1.ReplaceRequest]) (*connect.Response[adminv1.ReplaceResponse], error) {
	h := (*Host)(a)
	h.upperMu.Lock()
	upper := h.upper
	h.upperMu.Unlock()
	if upper == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errLaunchesNone)
	}
	h.administered(ctx, req.Spec(), req.Msg.GetName())
	if err := upper.replaceLaunched(ctx, req.Msg.GetName()); err != nil {
		if ctx.Err() != nil {
			return nil, endOfStream(ctx)
		}
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New(printable(valid(err.Error()))))
	}
	return connect.NewResponse(&adminv1.ReplaceResponse{}), nil
}

// ReloadPolicy has the operator's function read the policy, and sets it.
func (a *adminChanger) ReloadPolicy(ctx context.Context, req *connect.Request[adminv1.ReloadPolicyRequest]) (*connect.Response[adminv1.ReloadPolicyResponse], error) {
	h := (*Host)(a)
	if h.cfg.Admin.LoadPolicy == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errReloadsNothing)
	}
	next, err := h.loadPolicy(ctx)
	told := errLoadFailed
	if err == nil {
		h.administered(ctx, req.Spec(), "")
		if err = h.SetPolicy(next); err != nil { // CheckPolicy says it, too
			told = errors.New(printable(valid(err.Error())))
		}
	}
	if err != nil {
		h.cfg.Logger.Warn(errNotReloaded.Error(), logged(err)...)
		told = fmt.Errorf("%w: %w", errNotReloaded, told)
		h.hub.auditEvent(ctx, AuditEvent{Kind: AuditAdministered, Procedure: req.Spec().Procedure, Reason: told.Error()})
		return nil, connect.NewError(connect.CodeFailedPrecondition, told)
	}
	return connect.NewResponse(&adminv1.ReloadPolicyResponse{}), nil
}

// loadPolicy has the operator's function read the policy.
func (h *Host) loadPolicy(ctx context.Context) (p *Policy, err error) {
	err = guest.Contain("AdminConfig.LoadPolicy", func() (err error) {
		p, err = h.cfg.Admin.LoadPolicy(ctx)
		return err
	})
	if err == nil && p == nil {
		err = errNothingLoaded // else a file that is away would end every plugin
	}
	return p, err
}

// Errors to operators.
var (
	errNobodyNamed    = errors.New("name a runtime id or a self id")
	errLaunchesNone   = errors.New("the host launches no plugins")
	errRevokesItself  = errors.New("that is your own self id, which you could not readmit: have another operator revoke it")
	errNotLoaded      = errors.New("the policy was not loaded: AdminConfig.LoadPolicy failed, and the log of the host says why")
	errReloadsNothing = errors.New("the host has no AdminConfig.LoadPolicy")
	errNothingLoaded  = errors.New("AdminConfig.LoadPolicy returned no policy")
	errNotReloaded    = errors.New("the policy was not reloaded, and stays as it is")
	errLoadFailed     = errors.New("AdminConfig.LoadPolicy failed, and the log of the host says why")
)

// administered records a change before it is made, with who makes it.
func (h *Host) administered(ctx context.Context, spec connect.Spec, target string) {
	h.hub.auditEvent(ctx, AuditEvent{Kind: AuditAdministered, Procedure: spec.Procedure, Target: target})
}

// scrapes answers what asks for metrics, and nothing else.
func scrapes(metrics http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerCacheControl, noStore)
		switch {
		case r.URL.Path != pathMetrics || metrics == nil:
			http.NotFound(w, r)
		case probes.Rebound(r):
			w.WriteHeader(http.StatusMisdirectedRequest)
		case r.Method != http.MethodGet || r.ContentLength != 0:
			w.Header().Set("Allow", "GET")
			w.WriteHeader(http.StatusMethodNotAllowed)
		default:
			metrics.ServeHTTP(w, r)
		}
	})
}

// policyOf reads a policy that an operator wants looked at. Where it says that a plugin has a
// secret, that is the one of today.
func (h *Host) policyOf(d *adminv1.PolicyDocument) *Policy {
	now := h.hub.rules.Load()
	p := &Policy{
		Plugins: make(map[string]PluginPolicy, len(d.GetPlugins())), AllowMultiple: d.GetAllowMultiple(),
		Idempotent: d.GetIdempotent(), Public: d.GetPublic(),
	}
	for name, rules := range d.GetPlugins() {
		today := now.Plugins[name]
		if today == nil {
			today = now.Holders[name]
		}
		p.Plugins[name] = pluginPolicyOf(rules, today)
	}
	if d.GetDefault() != nil {
		rules := pluginPolicyOf(d.GetDefault(), now.Default)
		p.Default = &rules
	}
	return p
}

func pluginPolicyOf(r *adminv1.PluginRules, today *policy.Rules) PluginPolicy {
	p := PluginPolicy{
		Provides: r.GetProvides(), Requires: r.GetRequires(), Capabilities: r.GetCapabilities(), HostPlugins: r.GetHostPlugins(),
		Procedures: r.GetProcedures(), Endpoint: r.GetEndpoint(), AllowOwnAddress: r.GetAllowOwnAddress(),
		Certificates: r.GetCertificates(), PinnedKeys: r.GetPinnedKeys(), AllowUnproven: r.GetAllowUnproven(),
		MaxInstances: int(r.GetMaxInstances()), SelfIDs: r.GetSelfIds(),
	}
	switch {
	case !r.GetHasSecret():
	case today != nil && len(today.Secret) > 0:
		p.Secret = Secret(today.Secret)
	default: // one that nobody has proved
		p.Secret = make(Secret, nonceBytes)
		_, _ = rand.Read(p.Secret)
	}
	return p
}

// Drain takes a plugin's services out, so that it gets no new calls, and returns when its
// calls in flight are done. The plugin goes on living and may register again; one that
// [ServePlugin] serves does when it enrols anew, as after [Host.Revoke]. The error says
// that no plugin has the runtime id, or is that of ctx where it ended before the calls.
func (h *Host) Drain(ctx context.Context, runtimeID string) error {
	id, ok := h.mustBeMade().hub.store.Lookup(runtimeID)
	if !ok {
		return fmt.Errorf("drain %q: %w", runtimeID, errNotAlive)
	}
	declared(id).drained.Store(true)
	h.registry.catalog.RemoveWhere(ofRuntime(runtimeID))
	if err := h.router.awaitQuiet(ctx, runtimeID); err != nil {
		return fmt.Errorf("drain %q: %w", runtimeID, err)
	}
	return nil
}

// drainedReason stands where a plugin was drained and registered nothing since.
const drainedReason = "drained: it provides nothing until it enrols again"

// isDrained reports whether a plugin that provides so many services was drained and registered nothing since.
func isDrained(id *tokenstore.Identity, services int) bool {
	return services == 0 && declared(id).drained.Load()
}

// without returns the names that are not among others.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(others, n) })
}

func hostPluginsOf(b *policy.Book, s policy.Subject) []string {
	if r := b.Of(s); r != nil {
		return r.HostPlugins.List()
	}
	return nil
}
