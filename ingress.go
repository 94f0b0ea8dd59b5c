package connectplugin

import (
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/stack"
	"github.com/masegraye/connect-plugin-go/internal/target"
)

// ingress is the host's outermost handler: it refuses what was not meant for this
// host and finds the route of the rest.
type ingress struct {
	hub   *hub
	names atomic.Pointer[target.Names]
	table routeTable
	// draining reports that the host takes no new work.
	draining func() bool
}

// ServeHTTP refuses foreign hosts and origins, unclean paths and unknown routes.
func (in *ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	stack.Grow()
	w.Header().Set(headerCacheControl, noStore)
	switch {
	case !in.names.Load().Known(r.Host) || !target.SameOrigin(r, in.hub.settings().allowInsecure):
		in.note(r, "foreign Host or Origin")
		refuse(w, r, connect.CodePermissionDenied, errDenied)
		return
	case !target.CleanPath(r):
		in.note(r, "unclean path")
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	case in.draining():
		refuse(w, r, connect.CodeUnavailable, errShuttingDown)
		return
	}
	handler, ok := in.table.lookup(r.URL.Path)
	if !ok {
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	}
	handler.ServeHTTP(w, r)
}

func (in *ingress) note(r *http.Request, reason string) {
	in.hub.auditCall(withPeer(r.Context(), in.hub.newPeer(r)), AuditDenied, r.URL.Path, "", reason)
}
