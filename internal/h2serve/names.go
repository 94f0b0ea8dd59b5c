package h2serve

import (
	"net/textproto"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// Bounds of the names of fields that a connection remembers: a peer that has ever new ones, or
// long ones, does not fill the memory with them.
const (
	mostNames   = 128
	longestName = 64
)

// usual are the names that most requests and responses have. All connections share them.
var usual = sync.OnceValue(func() *names {
	n := &names{}
	for _, name := range []string{
		"accept", "accept-encoding", "accept-post", "allow", "authorization", "cache-control", "connect-accept-encoding",
		"connect-content-encoding", "connect-protocol-version", "connect-timeout-ms", "content-encoding", "content-length",
		"content-type", "date", "grpc-accept-encoding", "grpc-encoding", "grpc-message", "grpc-status",
		"grpc-status-details-bin", "grpc-timeout", "retry-after", "te", "traceparent", "tracestate", "trailer", "user-agent", "vary",
		"x-plugin-lease", "x-plugin-runtime-id",
	} {
		n.lowerOf(n.canonicalOf(name))
	}
	return n
})

// names remembers how the names of fields are written in HTTP/2, in lower case, and how handlers
// look for them. The zero value knows none. Each of its maps is guarded by itself.
type names struct {
	canonical map[string]string // by lower
	lower     map[string]string // by canonical; empty for a name that is not sent
}

// canonicalName returns the name of a field as handlers look for it.
func (n *names) canonicalName(lower string) string {
	if known, ok := usual().canonical[lower]; ok {
		return known
	}
	return n.canonicalOf(lower)
}

func (n *names) canonicalOf(lower string) string {
	if known, ok := n.canonical[lower]; ok {
		return known
	}
	canonical := textproto.CanonicalMIMEHeaderKey(lower)
	remember(&n.canonical, lower, canonical)
	return canonical
}

// lowerName returns a field name as it is sent; it reports false for one that is not sent in
// HTTP/2, or is none.
func (n *names) lowerName(canonical string) (string, bool) {
	lower, ok := usual().lower[canonical]
	if !ok {
		lower = n.lowerOf(canonical)
	}
	return lower, lower != ""
}

func (n *names) lowerOf(canonical string) string {
	if known, ok := n.lower[canonical]; ok {
		return known
	}
	lower := strings.ToLower(canonical)
	if !httpguts.ValidHeaderFieldName(lower) || ofConnection(lower) {
		lower = ""
	}
	remember(&n.lower, canonical, lower)
	return lower
}

func remember(in *map[string]string, name, other string) {
	if len(*in) >= mostNames || len(name) > longestName {
		return
	}
	if *in == nil {
		*in = map[string]string{}
	}
	(*in)[strings.Clone(name)] = other
}

// ofConnection reports whether a field is one of HTTP/1's connections (RFC 9113, section 8.2.2).
func ofConnection(lower string) bool {
	switch lower {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return true
	default:
		return false
	}
}
