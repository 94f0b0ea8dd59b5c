package connectplugin

import (
	"context"
	"log/slog"
	"time"
)

// AuditKind names a kind of security decision.
type AuditKind string

// The kinds of audit events.
const (
	AuditAuthFailed AuditKind = "auth_failed" // a request or handshake whose credential was refused
	// AuditUnknownIdentity is a request with an identity that the host does not know: it
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
)

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
	// Peer is the remote address, without port.
	Peer string
	// RuntimeID and SelfID name the caller where it is known.
	RuntimeID string
	// SelfID is the name of the plugin to RuntimeID (see [Caller]), or of the one that was
	// claimed.
	SelfID string
	// Procedure is the path that was asked for.
	Procedure string
	// Subject is what the decision is about: a service type, a capability.
	Subject string
	// Reason says why, for the operator.
	Reason string
	// Count is how many requests the event stands for, where it is about what was only
	// counted since the last such event. Zero is one request.
	Count int
}

// auditor delivers audit events to the configured sink.
type auditor struct {
	sink func(AuditEvent)
	log  *slog.Logger
}

func (a *auditor) record(e AuditEvent) {
	e.Time = time.Now()
	for _, s := range []*string{&e.Peer, &e.RuntimeID, &e.SelfID, &e.Procedure, &e.Subject, &e.Reason} {
		*s = printable(*s)
	}
	if a.sink != nil {
		a.sink(e)
		return
	}
	level := slog.LevelInfo
	if e.Kind.isRefusal() {
		level = slog.LevelWarn
	}
	a.log.LogAttrs(context.Background(), level, "audit",
		slog.String(keyKind, string(e.Kind)), slog.String(keyPeer, e.Peer),
		slog.String(keyRuntimeID, e.RuntimeID), slog.String(keySelfID, e.SelfID),
		slog.String(keyProcedure, e.Procedure), slog.String(keySubject, e.Subject),
		slog.String(keyReason, e.Reason), slog.Int(keyCount, max(e.Count, 1)))
}
