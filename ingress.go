package connectplugin

import (
	"crypto/tls"
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/stack"
	"github.com/masegraye/connect-plugin-go/internal/target"
)

// ingress is the host's outermost handler: it refuses what was not meant for this
// host and finds the route of the rest.
type ingress struct {
	hub   *hub
	names atomic.Pointer[target.Names]
	tls   *tls.Config // that the host serves with; nil in plaintext
	table routeTable
	// draining reports that the host takes no new work.
	draining func() bool
}

// ServeHTTP refuses foreign hosts and origins, unclean paths and unknown routes.
func (in *ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	stack.Grow()
	if c := edgeOf(r.Context()); c != nil {
		r.TLS = c.TLS()
	}
	w.Header().Set(headerCacheControl, noStore)
	switch {
	case !in.named(r) && !isProbe(r.URL.Path) || !target.SameOrigin(r, in.hub.settings().allowInsecure):
		refusedOn(r.Context())
		in.note(r, "foreign Host or Origin")
		refuse(w, r, connect.CodePermissionDenied, errDenied)
		return
	case !target.CleanPath(r):
		refusedOn(r.Context())
		in.note(r, "unclean path")
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	case in.draining():
		refuse(w, r, connect.CodeUnavailable, errShuttingDown)
		return
	}
	handler, ok := in.table.lookup(r.URL.Path)
	if !ok {
		refusedOn(r.Context())
		in.hub.tellRefusal(nil, AuditDenied, RefusedRequest)
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	}
	handler.ServeHTTP(w, r)
}

// named reports whether a request is for a name of this host: one that is configured, or
// that stands in the certificate which was shown on the request's connection. A server of
// the user's own does not tell which that was; it follows from the name that its client
// asked for in TLS.
func (in *ingress) named(r *http.Request) bool {
	names := in.names.Load()
	if conn, ok := connectionOf(r.Context()); ok {
		return names.Known(r.Host, conn.served)
	}
	if names.Known(r.Host, nil) {
		return true
	}
	return in.tls != nil && r.TLS != nil && names.Known(r.Host, certs.ServerLeafFor(in.tls, r.TLS.ServerName))
}

// isProbe reports whether a path is that of a probe, which asks for an address and not
// for a name, learns one bit and changes nothing.
func isProbe(path string) bool { return path == pathHealthz || path == pathReadyz }

func (in *ingress) note(r *http.Request, reason string) {
	in.hub.auditCall(withPeer(r.Context(), in.hub.newPeer(r)), AuditDenied, r.URL.Path, reason)
}
