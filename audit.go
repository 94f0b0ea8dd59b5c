package connectplugin

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/auditlog"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
	"github.com/masegraye/connect-plugin-go/internal/recent"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// AuditKind names a kind of security decision.
type AuditKind string

// The kinds of audit events.
const (
	AuditAuthFailed AuditKind = "auth_failed" // a request or handshake whose credential was refused
	// AuditUnknownIdentity is a request with an identity that the host does not know, or with a grant: it
	// ended, or is one of the host before this one. It is no attack, and where it goes on
	// it is counted.
	AuditUnknownIdentity AuditKind = "unknown_identity"
	AuditDenied          AuditKind = "denied"          // an authenticated caller asked for what it may not have
	AuditLimited         AuditKind = "limited"         // a rate, a count or a size was exceeded
	AuditIssued          AuditKind = "issued"          // an identity was issued
	AuditRenewed         AuditKind = "renewed"         // an identity's token was renewed
	AuditEnded           AuditKind = "ended"           // an identity ended
	AuditGranted         AuditKind = "granted"         // a capability was granted
	AuditRevoked         AuditKind = "revoked"         // a capability grant was revoked
	AuditRegistered      AuditKind = "registered"      // a service was registered
	AuditUnregistered    AuditKind = "unregistered"    // a service was withdrawn
	AuditConflict        AuditKind = "conflict"        // a service type or an endpoint belongs to another plugin
	AuditWatcherDropped  AuditKind = "watcher_dropped" // a watcher fell behind and was resynchronised
	AuditPolicyChanged   AuditKind = "policy_changed"  // the policy was replaced
	AuditAdministered    AuditKind = "administered"    // an operator changed something over the admin service
)

// AuditRight names a list of [PluginPolicy].
type AuditRight string

// The lists that name what a plugin may do.
const (
	RightProvides     AuditRight = "Provides"     // Subject is a service type
	RightRequires     AuditRight = "Requires"     // Subject is a service type
	RightCapabilities AuditRight = "Capabilities" // Subject is a capability
	RightHostPlugins  AuditRight = "HostPlugins"  // Subject is one of the host's own plugins
)

// event is one about a name in the list.
func (r AuditRight) event(kind AuditKind, procedure, subject, reason string) AuditEvent {
	return AuditEvent{Kind: kind, Procedure: procedure, Right: r, Subject: subject, Reason: reason}
}

// notAllowed says why a plugin may not do what a right lets it do with a name, and what lets it.
func (h *hub) notAllowed(id *tokenstore.Identity, right AuditRight, name string) string {
	subject, rules := subjectOf(id), h.rulesOf(id)
	if rules == nil {
		return "policy does not know this plugin"
	}
	declares, allows := subject.Requires.Has(name), rules.Requires.Has(name)
	switch right {
	case RightRequires:
	case RightCapabilities, RightHostPlugins: // no plugin declares them
		declares, allows = true, false
	case RightProvides:
		declares, allows = subject.Provides.Has(name), rules.Provides.Has(name)
	}
	policyLacks := fmt.Sprintf("not allowed by policy: add %q to Policy.Plugins[%q].%s", clipped(name), clipped(id.SelfID()), right)
	notDeclared := fmt.Sprintf("not declared by the plugin: it has to name %q in %s of its Metadata", clipped(name), right)
	switch {
	case !declares && !allows:
		return notDeclared + "; " + policyLacks
	case !allows:
		return policyLacks
	case !declares:
		return notDeclared
	}
	return "not among what SetAllowedServices leaves to the plugin"
}

// isRefusal reports whether somebody did not get what it asked for.
func (k AuditKind) isRefusal() bool {
	return k == AuditAuthFailed || k == AuditDenied || k == AuditLimited || k == AuditConflict
}

// AuditEvent is one security decision of a host. Its texts are bounded and hold
// no control characters, and it never carries a secret or a token.
type AuditEvent struct {
	// Time is when the decision was made.
	Time time.Time
	// Kind says what was decided.
	Kind AuditKind
	// Peer is the remote address, without port: of the request or connection, or, where the event
	// is about an identity and there is none, of that identity's last handshake. What is counted of
	// strangers stands for all of an IPv6 address's /64.
	Peer string
	// RuntimeID is the identity of the caller; where there is no call, the one that the event
	// is about; or one that was claimed in vain.
	RuntimeID string
	// SelfID is the name of the plugin to RuntimeID (see [Caller]), or of the one that was
	// claimed.
	SelfID string
	// Procedure is the path that was asked for.
	Procedure string
	// Subject is what was asked for or is provided, by the name under which policy lists it
	// in Right: a service type, a capability, one of the host's own plugins.
	Subject string
	// Right is the list of [PluginPolicy] that holds Subject, or would have to.
	Right AuditRight
	// Registration is the registration that it is about.
	Registration string
	// Grant is the id of the capability grant that it is about. It proves nothing.
	Grant string
	// AuthProvider is the name of the auth provider that refused.
	AuthProvider string
	// Target is the plugin that an operator changed: a runtime id, or a self id where all of
	// its instances are meant, or the name of a launch.
	Target string
	// Reason says why, for the operator.
	Reason string
	// Count is how many requests the event stands for, where it is about what was only
	// counted since the last such event. Zero is one request.
	Count int
}

// auditor delivers audit events to the configured sink.
type auditor struct {
	sink   func(AuditEvent)
	log    *slog.Logger
	recent *recent.Ring[AuditEvent] // nil where nobody may ask for them
}

func (a *auditor) record(e AuditEvent) {
	for _, s := range e.texts() {
		*s.text = printable(*s.text)
	}
	a.recent.Add(e)
	if a.sink != nil {
		err := guest.Contain("ServeConfig.Audit", func() error { a.sink(e); return nil })
		if err == nil {
			return
		}
		a.log.Error("an event is in the log and may be missing in the audit", keyError, err) // what was done is done
	}
	level := slog.LevelInfo
	if e.Kind.isRefusal() {
		level = slog.LevelWarn
	}
	a.log.LogAttrs(context.Background(), level, "audit", e.attrs()...)
}

// auditText is a text of an event and the key under which it is written.
type auditText struct {
	key  string
	text *string
}

// texts are those of an event but for its kind, in the order in which they are written.
func (e *AuditEvent) texts() []auditText {
	return []auditText{
		{keyPeer, &e.Peer},
		{keyRuntimeID, &e.RuntimeID},
		{keySelfID, &e.SelfID},
		{keyProcedure, &e.Procedure},
		{keySubject, &e.Subject},
		{keyRight, (*string)(&e.Right)},
		{keyRegistration, &e.Registration},
		{keyGrant, &e.Grant},
		{keyAuthProvider, &e.AuthProvider},
		{keyTarget, &e.Target},
		{keyReason, &e.Reason},
	}
}

// attrs are the fields of an event that say something.
func (e *AuditEvent) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String(keyKind, string(e.Kind))}
	for _, s := range e.texts() {
		if *s.text != "" {
			attrs = append(attrs, slog.String(s.key, *s.text))
		}
	}
	return append(attrs, slog.Int(keyCount, max(e.Count, 1)))
}

// auditBound records that a request is larger or slower than it may be: the first one of a peer for each bound,
// and counted beyond that. Who makes it is the caller where he is known yet, or else who called last over its connection.
func (h *hub) auditBound(ctx context.Context, procedure, bound string) {
	p, ok := peerFrom(ctx)
	if !ok {
		return
	}
	p.refused.Store(true)
	c, _ := callerFrom(ctx)
	h.tellRefusal(c, AuditLimited, RefusedRequest)
	h.auditMet(ctx, p, procedure, bound)
}

// auditMet does what auditBound does with a request that was not refused.
func (h *hub) auditMet(ctx context.Context, p *peer, procedure, bound string) {
	e := AuditEvent{Kind: AuditLimited, Peer: p.addr, Procedure: procedure, Reason: bound}
	var id *tokenstore.Identity
	if c, known := callerFrom(ctx); known {
		id = c.id
		e.RuntimeID, e.SelfID = id.RuntimeID(), id.SelfID()
	} else {
		id = e.by(p.conn)
	}
	h.auditCounted(id, e)
}

// by says who called last over a connection, where that is known, and returns it.
func (e *AuditEvent) by(c *connection) *tokenstore.Identity {
	if c == nil {
		return nil
	}
	id := c.last.Load()
	if id != nil {
		e.RuntimeID, e.SelfID = id.RuntimeID(), id.SelfID()
	}
	return id
}

// auditCounted records what recurs for the same reason the first time, and counts it from then on; of whom, nil for
// nobody that is known.
func (h *hub) auditCounted(id *tokenstore.Identity, e AuditEvent) {
	if h.recurs(id, e.Reason, e) {
		h.auditFrom(id != nil, e)
	}
}

// auditWait records that what an identity does has to wait for a bound: the first time, and counted from then on. Nothing
// of it is refused.
func (h *hub) auditWait(id *tokenstore.Identity, bound string) {
	defer h.survives("Audit")
	h.auditCounted(id, AuditEvent{
		Kind: AuditLimited, Peer: addrOf(id), RuntimeID: id.RuntimeID(), SelfID: id.SelfID(), Reason: bound,
	})
}

// boundsOfNewcomers are those that connections meet before there is a request, boundsOfPeers those that they meet later,
// and boundsOfCutOffs those for which they are cut off.
var (
	boundsOfNewcomers = map[error]string{
		edge.ErrTooFast: tooManyNew, edge.ErrNoPlace: tooManyUnproven, edge.ErrDisplaced: tooManyDisplaced,
		edge.ErrFull: tooManyOpen, edge.ErrSlow: tooSlowTLS,
	}
	boundsOfPeers = map[error]string{
		h2serve.ErrSlow: tooSlowPreface, h2serve.ErrSilent: tooSilent, h2serve.ErrStuck: tooStuck, h2serve.ErrTrailer: tooLargeHead,
	}
	boundsOfCutOffs = map[string]string{
		edge.CutOffPings: "Limits.PingsPerSecond, Limits.PingBurst", edge.CutOffRefusals: "Limits.RefusalsPerSecond, Limits.RefusalBurst",
		edge.CutOffSlow: "Limits.ReadHeaderTimeout", edge.CutOffBlock: "Limits.MaxHeaderBytes",
	}
)

// recordNewcomer records that a connection met a bound of those.
func (h *hub) recordNewcomer(addr net.Addr, bound string) {
	h.tellRefusal(nil, AuditLimited, RefusedConnection)
	defer h.survives("Audit")
	e := AuditEvent{Kind: AuditLimited, Reason: bound}
	if addr != nil {
		e.Peer = addrOnly(addr.String())
	}
	h.auditCounted(nil, e)
}

// recordMet records that the peer of a connection met one of boundsOfPeers.
func (h *hub) recordMet(c net.Conn, err error) {
	if met, ok := c.(*edge.Conn); ok {
		where := RefusedConnection
		if errors.Is(err, h2serve.ErrTrailer) {
			where = RefusedRequest
		}
		h.recordPeer(met, boundsOfPeers[err], where)
	}
}

// recordPeer records that the peer of a connection met a bound.
func (h *hub) recordPeer(c *edge.Conn, bound string, where RefusalPlace) {
	h.tellRefusal(nil, AuditLimited, where)
	defer h.survives("Audit")
	e := AuditEvent{Kind: AuditLimited, Peer: addrOnly(c.RemoteAddr().String()), Reason: bound}
	var id *tokenstore.Identity
	if conn, ok := connectionOf(c.Context()); ok {
		id = e.by(conn)
	}
	h.auditCounted(id, e)
}

// recordCutOff records that a connection was cut off: one by one as long as the budget of its peer
// for that lasts, and counted beyond that.
func (h *hub) recordCutOff(c *edge.Conn, reason string) {
	h.tellRefusal(nil, AuditLimited, RefusedConnection)
	defer h.survives("Audit")
	p := &peer{addr: addrOnly(c.RemoteAddr().String())}
	e := AuditEvent{Kind: AuditLimited, Peer: p.addr, Reason: "connection cut off: " + reason}
	if bound := boundsOfCutOffs[reason]; bound != "" {
		e.Reason += " (" + bound + ")"
	}
	var id *tokenstore.Identity
	if conn, ok := connectionOf(c.Context()); ok {
		id = e.by(conn)
	}
	if h.spend(peerBudget("cut off:", p, h.settings().limits.handshakeRate())) {
		h.auditFrom(id != nil, e)
		return
	}
	h.auditCounted(id, e)
}

// AuditCheckpoint says how far an audit log had got, signed by its key. Kept where whoever may write
// the log may not, it shows whether the end of the log was cut off.
type AuditCheckpoint = auditlog.Checkpoint

// AuditReport is what is known of an audit log that holds.
type AuditReport = auditlog.Report

// AuditLogError is returned by [VerifyAudit] where a log was changed: it names file and line.
type AuditLogError = auditlog.ChangedError

// AuditSinkConfig says where an [AuditSink] writes and how.
type AuditSinkConfig struct {
	// Path is the file. Where it is there the sink goes on with it; a sink that is open
	// elsewhere on the same file is an error, as far as the system knows locks. Required.
	Path string
	// Key signs the checkpoints. Whoever has it can write another log. Required.
	Key ed25519.PrivateKey
	// CheckpointEvery is after how many lines a checkpoint is written, at most 10,000, and
	// CheckpointInterval after what time, 1 ms at least, where anything was. Zero means 1,000 and 1 min.
	CheckpointEvery int
	// CheckpointInterval is the time to CheckpointEvery.
	CheckpointInterval time.Duration
	// MaxBytes is how long a file gets before it is put aside, with the number of its first
	// line behind its name. Nothing is ever deleted. Zero means 64 MiB.
	MaxBytes int64
	// Buffer is how many events wait to be written; more are dropped, and counted in the log.
	// At most 1,048,576. Zero means 4,096.
	Buffer int
	// OnCheckpoint gets each checkpoint when it is on disk, to be kept elsewhere. The sink waits for it, and its callers do not: while it
	// does not return, events wait in Buffer, and are dropped beyond that, which Logger is told. A panic of it is logged. May be nil.
	OnCheckpoint func(AuditCheckpoint)
	// Logger is told of what cannot be written or is dropped, and of a sink that stands still, once a minute with what it
	// waits for, and when it goes on. Nil means slog.Default().
	Logger *slog.Logger
}

// AuditSink writes audit events to files: one JSON object a line, each with the SHA-256 of the line
// before, and with checkpoints that are signed with Ed25519 (RFC 8032), so that [VerifyAudit] finds what
// was changed afterwards. Give its Record to [ServeConfig].Audit, and close it after the host. It is
// safe for concurrent use.
type AuditSink struct{ w *auditlog.Writer }

// NewAuditSink opens a sink. An error about the configuration wraps [ErrInvalidConfig] and names the
// field.
func NewAuditSink(cfg AuditSinkConfig) (*AuditSink, error) {
	switch {
	case cfg.Path == "":
		return nil, fieldError("Path", "is empty; write the name of a file")
	case len(cfg.Key) != ed25519.PrivateKeySize:
		return nil, fieldError("Key", "is no Ed25519 private key; make one with ed25519.GenerateKey and keep it")
	case cfg.CheckpointEvery < 0 || cfg.CheckpointEvery > auditlog.MaxEvery:
		return nil, fieldError("CheckpointEvery", "must lie between 0, for the default, and %d", auditlog.MaxEvery)
	case cfg.MaxBytes < 0:
		return nil, fieldError("MaxBytes", isNegative)
	case cfg.Buffer < 0:
		return nil, fieldError("Buffer", isNegative)
	case cfg.Buffer > auditlog.MaxBuffer:
		return nil, fieldError("Buffer", "is more than %d", auditlog.MaxBuffer)
	case cfg.CheckpointInterval != 0 && cfg.CheckpointInterval < leastDuration:
		return nil, checkDuration("CheckpointInterval", cfg.CheckpointInterval, leastDuration)
	}
	trouble := &auditTrouble{log: danger(cfg.Logger)}
	w, err := auditlog.Open(auditlog.Config{
		Path: cfg.Path, Key: cfg.Key, Every: cfg.CheckpointEvery, Interval: cfg.CheckpointInterval, MaxBytes: cfg.MaxBytes, Buffer: cfg.Buffer,
		OnCheckpoint: cfg.OnCheckpoint, OnError: trouble.failed, OnWritten: trouble.over, OnBehind: func(b auditlog.Behind) {
			const text = "the audit log does not keep up; beyond AuditSinkConfig.Buffer events are dropped"
			trouble.log.Error(text, keyCount, b.Dropped, keyReason, b.Reason())
		},
	})
	if err != nil {
		return nil, err
	}
	return &AuditSink{w: w}, nil
}

// Record has an event written and never blocks.
func (s *AuditSink) Record(e AuditEvent) {
	w := s.made()
	if text, err := e.json(); err == nil {
		w.Record(text)
	}
}

// Dropped returns how many events were not written since the sink was opened.
func (s *AuditSink) Dropped() uint64 { return s.made().Lost() }

// Close writes what waits and a last checkpoint, and returns the first error of all writing, of which a panic
// of OnCheckpoint is one, how many events were dropped, and that it has not returned 5 seconds later: nobody waits for it any
// more then, and the log on disk is whole. Events that come later are dropped.
func (s *AuditSink) Close() error { return s.made().Close() }

// made returns what writes, of a sink that NewAuditSink made.
func (s *AuditSink) made() *auditlog.Writer {
	mustBeMade("the AuditSink", s != nil && s.w != nil, "NewAuditSink")
	return s.w
}

// json is an event as a line has it, without the fields that say nothing.
func (e *AuditEvent) json() ([]byte, error) {
	fields := map[string]any{"time": e.Time.UTC(), keyKind: e.Kind, keyCount: max(e.Count, 1)}
	for _, s := range e.texts() {
		if *s.text != "" {
			fields[s.key] = strings.ToValidUTF8(*s.text, "\ufffd")
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("audit event: %w", err)
	}
	return text, nil
}

// VerifyAudit checks the files of an audit log, oldest first, against the key of its checkpoints, and
// against a checkpoint that was kept elsewhere, nil for none. With it a log that was cut off is found,
// too; without it, everything after the last checkpoint of the files could be missing, and what follows
// that is not signed (Unsigned in the report). The error is an [AuditLogError] where something was changed.
// Without files it fails.
func VerifyAudit(key ed25519.PublicKey, kept *AuditCheckpoint, files ...string) (AuditReport, error) {
	v, err := auditlog.NewVerifier(key, kept)
	if err != nil {
		return AuditReport{}, err
	}
	for _, name := range files {
		f, err := os.Open(name) //nolint:gosec // the operator names it
		if err != nil {
			return AuditReport{}, fmt.Errorf("audit log: %w", err)
		}
		if err := errors.Join(v.File(name, f), f.Close()); err != nil {
			return AuditReport{}, err
		}
	}
	return v.Finish()
}

// AuditFiles returns the files of the audit log at a path, oldest first.
func AuditFiles(path string) ([]string, error) {
	return auditlog.All(path)
}

// failure is what the log only counts after the first time: that calls to a provider fail in one way.
type failure struct{ service, account, selfID, reason string }

// failed is the last provider that was called so.
type failed struct{ selfID, runtimeID string }

// logFailure logs that a routed call failed the first time, and counts it from then on.
func (h *hub) logFailure(c *caller, reg *catalog.Registration, reason string, err error) {
	what := failure{service: reg.Type, selfID: reg.SelfID, reason: reason}
	if id, _ := h.store.Lookup(reg.RuntimeID); id != nil && !id.Proven() { // it may say any self id
		what.account, what.selfID = account(id), ""
	}
	first := h.failing.Note(what, failed{reg.SelfID, reg.RuntimeID})
	if !h.counts.Load() { // nobody would say it
		first = h.spend(accountBudget("failed:", c.id, h.settings().limits.handshakeRate()))
	}
	switch {
	case first:
		h.log().Warn("a routed call failed", keyService, what.service, keySelfID, reg.SelfID, keyRuntimeID, reg.RuntimeID,
			keyReason, what.reason, keyError, err)
	case !h.counts.Load():
		h.leftOut.Add(1)
	}
}

// logFailures says how many more calls failed since it was said last.
func (h *hub) logFailures() {
	for what, n := range h.failing.Take() {
		h.log().Warn("more routed calls failed, which the log only counts", keyService, what.service, keySelfID, n.Last.selfID,
			keyRuntimeID, n.Last.runtimeID, keyReason, what.reason, keyCount, n.N)
	}
}

// sayCounts says what was counted since it did last.
func (h *hub) sayCounts() {
	h.auditCounts()
	h.logFailures()
	h.sayLeftOut()
}
