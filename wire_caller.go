package connectplugin

import (
	"context"
	"net/http"
)

// Rights are what a caller may do: what it declared and what policy allows.
// "*" in a list is everything.
type Rights struct {
	// Provides lists the service types that it may register.
	Provides []string
	// Requires lists the service types that it may discover, watch and call.
	Requires []string
	// Capabilities lists the capabilities that it may be granted.
	Capabilities []string
}

// Caller is the authenticated plugin behind a request.
type Caller struct {
	// RuntimeID is the identity that the host issued.
	RuntimeID string
	// SelfID is the name that policy is written for.
	SelfID string
	// SelfVersion is the version that the plugin gave.
	SelfVersion string
	// Fingerprint is the SHA-256 of the public key (SPKI) in its client
	// certificate, in hex; empty without mutual TLS.
	Fingerprint string
	// Rights are its rights at the time of the call of [CallerFromContext].
	Rights Rights
}

type statedCallerKey struct{}

// statedCaller returns the caller that the host stated.
func statedCaller(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(statedCallerKey{}).(Caller)
	return c, ok
}

// withStatedCaller gives a plugin's handler the caller that the host states in header
// fields. Nobody but the host can have sent the request.
func withStatedCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id := r.Header[headerCallerID]; len(id) == 1 && id[0] != "" {
			c := Caller{RuntimeID: id[0], SelfID: r.Header.Get(headerCallerSelfID), SelfVersion: r.Header.Get(headerCallerVersion)}
			r = r.WithContext(context.WithValue(r.Context(), statedCallerKey{}, c))
		}
		next.ServeHTTP(w, r)
	})
}
