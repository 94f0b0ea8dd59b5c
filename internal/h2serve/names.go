package h2serve

import (
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// known are the names of fields that calls have, as handlers see them and as they are sent.
// Others are kept by the connection on which they come.
var known = newNames(
	"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Baggage", "Cache-Control", "Connect-Accept-Encoding",
	"Connect-Content-Encoding", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Content-Encoding", "Content-Length",
	"Content-Type", "Cookie", "Date", "Expect", "Grpc-Accept-Encoding", "Grpc-Encoding", "Grpc-Message", "Grpc-Status",
	"Grpc-Status-Details-Bin", "Grpc-Timeout", "Host", "Origin", "Referer", "Retry-After", "Te", "Traceparent", "Tracestate",
	"Trailer", "User-Agent", "Vary", "Www-Authenticate", "X-Content-Type-Options", "X-Forwarded-For", "X-Grpc-Web",
	"X-Plugin-Lease", "X-Plugin-Report-After", "X-Plugin-Runtime-Id", "X-Plugin-Standby", "X-User-Agent",
)

type names struct {
	canonical map[string]string // by the lower-case name
	lower     map[string]string // by the canonical name
}

func newNames(canonical ...string) names {
	n := names{canonical: make(map[string]string, len(canonical)), lower: make(map[string]string, len(canonical))}
	for _, name := range canonical {
		n.canonical[strings.ToLower(name)] = name
		n.lower[name] = strings.ToLower(name)
	}
	return n
}

// canonical returns the name of a field as handlers look for it. It is for whoever reads.
func (c *conn) canonical(name string) string {
	if canonical, ok := known.canonical[name]; ok {
		return canonical
	}
	if canonical, ok := c.names[name]; ok {
		return canonical
	}
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	if c.names == nil {
		c.names = map[string]string{}
	}
	if len(c.names) < mostNames && len(name) <= longestName {
		c.names[name] = canonical
	}
	return canonical
}

// texts are values that the requests of a connection had lately. A client says who it is in each of them, and what many
// requests keep of that is kept once.
type texts struct {
	last [usualTexts]string
	next int
}

// Which values are kept: of the path, of who is meant and who calls, and with which program. Shorter ones are as small as the place.
const (
	usualTexts   = 6
	shortestText = 12
	longestText  = 128
)

// shared returns a text that is s, the same one for all that are kept.
func (t *texts) shared(s string) string {
	if len(s) < shortestText || len(s) > longestText {
		return s
	}
	for _, had := range t.last {
		if had == s {
			return had
		}
	}
	t.last[t.next] = s
	t.next = (t.next + 1) % usualTexts
	return s
}

// lowerLocked returns a field name as it is sent; it reports false for one that is not sent in
// HTTP/2, or is none.
func (c *conn) lowerLocked(name string) (string, bool) {
	if lower, ok := known.lower[name]; ok {
		return lower, true
	}
	if lower, ok := c.lower[name]; ok {
		return lower, lower != ""
	}
	lower := strings.ToLower(name)
	if !httpguts.ValidHeaderFieldName(lower) || ofConnection(lower) {
		lower = ""
	}
	if c.lower == nil {
		c.lower = map[string]string{}
	}
	if len(c.lower) < mostNames && len(name) <= longestName {
		c.lower[name] = lower
	}
	return lower, lower != ""
}
