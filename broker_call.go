package connectplugin

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// errGrantElsewhere says that a grant was used for what it was not given.
const errGrantElsewhere = refused("the grant is for another capability or another caller")

// identifyGrant demands a capability grant. Its owner is the caller, and the call
// ends with the grant, too.
func identifyGrant(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial) {
	grant, no := h.authenticateGrant(p, r)
	if no != nil {
		return ctx, admission{}, no
	}
	setCallerHeader(r.Header, grant.Owner)
	a := admission{lease: lease{onEnd: grant.OnRevoke, cause: errGrantRevoked}}
	if grant.Owner != nil {
		a.caller = &caller{id: grant.Owner, hub: h}
		a.budget = h.requestBudget(a.caller)
		ctx = withCaller(ctx, a.caller)
	} else {
		a.budget = h.strangerBudget(ctx, p)
	}
	return context.WithValue(ctx, grantKey{}, grant), a, nil
}

// authenticateGrant proves the grant that a request claims.
func (h *hub) authenticateGrant(p *peer, r *http.Request) (*tokenstore.Grant, *denial) {
	capType, grantID, _ := splitCapabilityPath(r.URL.Path)
	var token string
	if auth := r.Header[headerAuthorization]; len(auth) == 1 {
		token, _ = bearer(auth[0])
	}
	claimed := r.Header[headerRuntimeID]
	grant, err := h.store.VerifyGrant(grantID, token, p.fingerprint())
	if err == nil && (grant.Type != capType || !claimsOwner(claimed, grant)) {
		err = errGrantElsewhere
	}
	if err != nil {
		return nil, unauthenticated(strings.Join(claimed, " "), err.Error())
	}
	return grant, nil
}

// claimsOwner reports whether the runtime id that a request claims, if it claims
// any, is that of the grant's owner.
func claimsOwner(claimed []string, grant *tokenstore.Grant) bool {
	switch len(claimed) {
	case 0:
		return true
	case 1:
		return grant.Owner != nil && claimed[0] == grant.Owner.RuntimeID()
	}
	return false
}

type grantKey struct{}

func grantFrom(ctx context.Context) (*tokenstore.Grant, bool) {
	grant, ok := ctx.Value(grantKey{}).(*tokenstore.Grant)
	return grant, ok
}

// serveCapability serves a call that came with a grant, which the middleware
// proved: /capabilities/{type}/{grant}/… on the wire.
func (b *CapabilityBroker) serveCapability(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	grant, ok := grantFrom(ctx)
	if !ok {
		refuse(w, r, connect.CodeUnauthenticated, errUnauthenticated)
		return
	}
	handler, ok := b.lookup(grant.Type)
	if !ok || handler.Version() != grant.Version {
		b.note(ctx, AuditDenied, r.URL.Path, grant.Type, "the capability of the grant is not offered any more")
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	}
	if c, ok := callerFrom(ctx); ok {
		release, ok := c.hub.permit(c.call, func(book *policy.Book) bool { return book.MayUse(subjectOf(c.id), grant.Type) })
		if !ok {
			b.note(ctx, AuditDenied, r.URL.Path, grant.Type, "not allowed by policy")
			refuse(w, r, connect.CodeNotFound, errNotAvailable)
			return
		}
		defer release()
	}
	handler.ServeHTTP(w, b.capabilityRequest(w, r))
}

// capabilityRequest is the request as the capability sees it: without what
// belongs to the grant.
func (b *CapabilityBroker) capabilityRequest(w http.ResponseWriter, r *http.Request) *http.Request {
	_, _, rest := splitCapabilityPath(r.URL.Path)
	out := r.WithContext(r.Context())
	out.URL = new(url.URL)
	*out.URL = *r.URL
	out.URL.Path = cmp.Or(rest, "/")
	out.RequestURI = out.URL.RequestURI()
	out.Header = r.Header.Clone()
	for _, name := range []string{headerAuthorization, headerRuntimeID, "Cookie", "Proxy-Authorization"} {
		out.Header.Del(name)
	}
	out.Body = http.MaxBytesReader(w, r.Body, b.bound.Load().settings().limits.MaxCallBytes)
	return out
}

// splitCapabilityPath splits /capabilities/{type}/{grant}/rest.
func splitCapabilityPath(path string) (capType, grantID, rest string) {
	path = strings.TrimPrefix(path, pathCapabilities)
	capType, path, _ = strings.Cut(path, "/")
	grantID, rest, ok := strings.Cut(path, "/")
	if ok {
		rest = "/" + rest
	}
	return capType, grantID, rest
}
