// Package headers decides which header fields of a forwarded RPC pass between
// two plugins.
//
// A field passes by allow-list. There are two ways onto it:
//
//   - It is a field of the RPC protocols or of HTTP that an RPC needs, and it is
//     listed by name for the direction it travels in (Connect, gRPC and gRPC-Web
//     fields, content type and codings, timeouts, W3C trace context).
//   - It is application metadata: its name is canonical, of the alphabet that gRPC
//     allows for metadata (letters, digits, '-', '_', '.'), and neither it nor
//     its spelling with '-' for '_' is a name or has a prefix that HTTP, a
//     proxy, a gateway, a credential or the host itself has a use for.
//
// Everything else stays behind: hop-by-hop fields and those that Connection
// names, cookies, credentials, forwarding fields, what the host states itself
// (X-Plugin-), and every standard HTTP field that is not listed. A value with
// a control character never passes.
package headers

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Names of the fields that the host itself reads or writes, in canonical form.
const (
	CallerID      = "X-Plugin-Caller-Id"
	CallerSelfID  = "X-Plugin-Caller-Self-Id"
	CallerVersion = "X-Plugin-Caller-Self-Version"
	RuntimeID     = "X-Plugin-Runtime-Id"
	Authorization = "Authorization"
	// LastCall says, with Yes, to a plugin that its host launched: it has taken the plugin out, and
	// no other call is under way.
	LastCall = "X-Plugin-Last-Call"
)

// Yes is the value of a field that says yes.
const Yes = "true"

// Direction is the way that a field travels.
type Direction uint8

// The directions. Trailer is the end of a response; request trailers are part of
// no RPC protocol.
const (
	Request Direction = 1 << iota
	Response
	Trailer
)

const (
	connection       = "Connection"
	transferCodings  = "Te"
	trailersCoding   = "trailers"
	unaryTrailer     = "Trailer-" // Connect sends the trailers of a unary call as headers with this prefix
	everyDirection   = Request | Response | Trailer
	noDirection      = Direction(0)
	headersDirection = Request | Response
)

// Rules is a set of rules for passing fields on. The zero value has the
// built-in rules. It is immutable and safe for concurrent use.
type Rules struct {
	reserved map[string]struct{}
	longest  int                 // bytes of the longest name in reserved
	added    map[string]struct{} // that pass, whatever the built-in rules say
	dropped  *dropped            // whom to tell of what does not pass; nil: nobody
}

// NewRules returns the built-in rules with further names reserved, such as the
// header of a configured authentication scheme. Their case does not matter.
func NewRules(reserved ...string) *Rules {
	r := &Rules{reserved: make(map[string]struct{}, len(reserved))}
	for _, name := range reserved {
		r.reserved[http.CanonicalHeaderKey(name)] = struct{}{}
		r.longest = max(r.longest, len(name))
	}
	return r
}

// With returns the rules with names added that pass in every direction, where [CheckName]
// lets them, and with whom to tell of names that do not pass: once for each, and for so many
// at most.
func (r *Rules) With(added []string, tell func(d Direction, name string)) *Rules {
	out := &Rules{reserved: r.reserved, longest: r.longest, added: make(map[string]struct{}, len(added))}
	for _, name := range added {
		if CheckName(name) == nil {
			out.added[http.CanonicalHeaderKey(name)] = struct{}{}
		}
	}
	if tell != nil {
		out.dropped = &dropped{tell: tell}
	}
	return out
}

// Passes reports whether a field of that name passes in the given direction. The
// name has to be in canonical form; any other form does not pass.
func (r *Rules) Passes(d Direction, name string) bool {
	if len(r.added) > 0 && r.isAdded(d, name) {
		return true
	}
	if verdict, ok := listed[name]; ok {
		return verdict&d != 0 && !r.isReserved(name)
	}
	if inner, ok := strings.CutPrefix(name, unaryTrailer); ok {
		_, known := listed[inner]
		return d == Response && !known && r.isMetadata(inner)
	}
	return r.isMetadata(name)
}

// Each calls yield for every field of src that passes in the given direction,
// once for each value, with its canonical name. Neither src nor its values are
// changed or kept.
func (r *Rules) Each(d Direction, src http.Header, yield func(name, value string)) {
	named := src[connection]
	for name, values := range src {
		if !r.Passes(d, name) || len(named) > 0 && nominated(named, name) {
			r.Drop(d, name)
			continue
		}
		for _, value := range values {
			if name == transferCodings {
				if !httpguts.HeaderValuesContainsToken(values, trailersCoding) {
					break
				}
				yield(name, trailersCoding)
				break
			}
			if httpguts.ValidHeaderFieldValue(value) {
				yield(name, value)
			}
		}
	}
}

// ValidValue reports whether value may stand in a header field: it has no
// control character but the tab.
func ValidValue(value string) bool { return httpguts.ValidHeaderFieldValue(value) }

// Lower returns the lower-case form of a canonical name, as HTTP/2 wants it. It
// allocates only for names that are not listed.
func Lower(name string) string {
	if lower, ok := lowered[name]; ok {
		return lower
	}
	return strings.ToLower(name)
}

// isAdded reports whether a name was added, also as a trailer of a unary call.
func (r *Rules) isAdded(d Direction, name string) bool {
	if _, ok := r.added[name]; ok {
		return !r.isReserved(name)
	}
	inner, ok := strings.CutPrefix(name, unaryTrailer)
	if !ok || d != Response {
		return false
	}
	_, ok = r.added[inner]
	return ok && !r.isReserved(inner)
}

func (r *Rules) isReserved(name string) bool {
	_, ok := r.reserved[name]
	return ok
}

// isMetadata reports whether an unlisted name is one of application metadata. Callers choose names, as long as they like: each
// byte is looked at a fixed number of times, and nothing is allocated.
func (r *Rules) isMetadata(name string) bool {
	if !isPlain(name) || hasReservedPrefix(name) || containsReserved(name) || r.isReserved(name) {
		return false
	}
	if strings.IndexByte(name, '_') < 0 {
		return true
	}
	// No reserved part has a '-', so that this spelling has none either. It is reserved by its beginning, or is no longer
	// than what is.
	var room [spelledRoom]byte
	most := max(longestKnown, r.longest)
	spelled := respell(room[:0], name[:min(len(name), most)])
	if slices.ContainsFunc(prefixesOf[spelled[0]], func(prefix string) bool {
		return len(spelled) >= len(prefix) && string(spelled[:len(prefix)]) == prefix
	}) {
		return false
	}
	_, known := listed[string(spelled)]
	_, reserved := r.reserved[string(spelled)]
	return len(name) > most || !known && !reserved
}

// spelledRoom is room for what the rules know.
const spelledRoom = 64

// respell appends a canonical name with '-' for '_' to dst, in canonical form.
func respell(dst []byte, name string) []byte {
	begins := true // a word
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '_':
			c = '-'
		case begins && 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		}
		dst, begins = append(dst, c), c == '-'
	}
	return dst
}

// isPlain reports whether a name is of the alphabet of metadata, and canonical.
func isPlain(name string) bool {
	begins := true // a word
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z':
			if begins {
				return false
			}
		case 'A' <= c && c <= 'Z':
			if !begins {
				return false
			}
		case (c < '0' || c > '9') && c != '-' && c != '_' && c != '.':
			return false
		}
		begins = name[i] == '-'
	}
	return name != ""
}

// hasReservedPrefix reports whether a name that is not empty begins as one that is reserved.
func hasReservedPrefix(name string) bool {
	for _, prefix := range prefixesOf[name[0]] {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// containsReserved reports whether a reserved part stands in the name in any case. It looks for all of them at once, as
// Shift-And does (Baeza-Yates and Gonnet, A New Approach to Text Searching, 1992): a bit of found says that the name has a
// part as far as that letter, and ends there.
func containsReserved(name string) bool {
	var found uint64
	for i := range len(name) {
		found = (found<<1 | parts.first) & parts.letters[name[i]]
		if found&parts.last != 0 {
			return true
		}
	}
	return false
}

func validName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return name != ""
}

// nominated reports whether a Connection field declares the name hop-by-hop.
func nominated(named []string, name string) bool {
	return httpguts.HeaderValuesContainsToken(named, name)
}
