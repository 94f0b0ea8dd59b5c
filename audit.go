package connectplugin

import (
	"context"
	"log/slog"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/recent"
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
	// RuntimeID is the identity of the caller, of whom the event is about where there is no
	// call, or the one that was claimed in vain.
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
	e.Time = time.Now()
	for _, s := range e.texts() {
		*s.text = printable(*s.text)
	}
	a.recent.Add(e)
	if a.sink != nil {
		a.sink(e)
		return
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
		{keyPeer, &e.Peer}, {keyRuntimeID, &e.RuntimeID}, {keySelfID, &e.SelfID}, {keyProcedure, &e.Procedure},
		{keySubject, &e.Subject}, {keyRight, (*string)(&e.Right)}, {keyRegistration, &e.Registration}, {keyGrant, &e.Grant},
		{keyAuthProvider, &e.AuthProvider}, {keyTarget, &e.Target}, {keyReason, &e.Reason},
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
