package proxy

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Prefix starts the path of every routed call.
const Prefix = "/services/"

// ErrPath says that a path is not one of clean absolute segments, or names no
// route.
var ErrPath = errors.New("path is not clean")

// Route is what the path /services/{type}/{provider}/{rest} of a routed call
// names.
type Route struct {
	Type     string // the service type
	Provider string // the runtime id of its provider
	Rest     string // the path on the provider, with its leading slash
}

// ParseRoute reads the route that a request's URL names. An escape, a dot
// segment, an empty segment or a character that a URL path must escape makes it
// an error that wraps [ErrPath]. The query is no part of the route; it is an
// error if it holds a character that cannot stand in a request line.
func ParseRoute(u *url.URL) (Route, error) {
	if u.Opaque != "" || !Unescaped(u) {
		return Route{}, fmt.Errorf("%w: escaped", ErrPath)
	}
	if err := CheckPath(u.Path); err != nil {
		return Route{}, err
	}
	if !validQuery(u.RawQuery) {
		return Route{}, fmt.Errorf("%w: query", ErrPath)
	}
	tail, ok := strings.CutPrefix(u.Path, Prefix)
	if !ok {
		return Route{}, fmt.Errorf("%w: no route", ErrPath)
	}
	serviceType, tail, _ := strings.Cut(tail, "/")
	provider, rest, _ := strings.Cut(tail, "/")
	if serviceType == "" || provider == "" || rest == "" {
		return Route{}, fmt.Errorf("%w: no route", ErrPath)
	}
	return Route{Type: serviceType, Provider: provider, Rest: tail[len(provider):]}, nil
}

// CheckPath reports whether p consists of clean absolute segments: it starts with
// a slash, no segment is empty (a slash may end it), "." or "..", and every
// character is one that a segment may hold as it is (RFC 3986, section 3.3) and
// that no server reads in a way of its own. So escapes, '?', '#', ';', backslashes,
// blanks, control and non-ASCII characters are refused. The error wraps [ErrPath]
// and does not repeat the path.
func CheckPath(p string) error {
	if p == "" || p[0] != '/' {
		return fmt.Errorf("%w: not absolute", ErrPath)
	}
	start := 1
	for i := 1; i < len(p); i++ {
		if p[i] == '/' {
			if err := checkSegment(p[start:i]); err != nil {
				return err
			}
			start = i + 1
			continue
		}
		if !isPathByte(p[i]) {
			return fmt.Errorf("%w: forbidden character", ErrPath)
		}
	}
	if start == len(p) {
		return nil
	}
	return checkSegment(p[start:])
}

// JoinPath returns the path on the provider for the rest of a route: rest itself
// where it lies under the path that the provider registered, and otherwise rest
// below that path. The result lies under the registered path in any case. Both
// have to be clean; an error wraps [ErrPath].
func JoinPath(registered, rest string) (string, error) {
	if err := CheckPath(rest); err != nil {
		return "", err
	}
	if registered == "" || registered == "/" {
		return rest, nil
	}
	if err := CheckPath(registered); err != nil {
		return "", err
	}
	base := strings.TrimSuffix(registered, "/")
	if under(base, rest) {
		return rest, nil
	}
	return base + rest, nil
}

// under reports whether p is base or lies below it.
func under(base, p string) bool {
	tail, ok := strings.CutPrefix(p, base)
	return ok && (tail == "" || tail[0] == '/')
}

func checkSegment(s string) error {
	switch s {
	case "":
		return fmt.Errorf("%w: empty segment", ErrPath)
	case ".", "..":
		return fmt.Errorf("%w: dot segment", ErrPath)
	default:
		return nil
	}
}

// isPathByte reports whether c is a character of a path segment that needs no
// escape. Left out is ';', which some servers cut at. The rule is that of
// endpoint paths, so that what a plugin may register can be called.
func isPathByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	default:
		return strings.IndexByte("-._~$&+,=:@"+encodedByNetURL, c) >= 0
	}
}

// encodedByNetURL are characters that RFC 3986 allows in a segment and net/url
// escapes where nothing says how a path was written.
const encodedByNetURL = "!'()*"

// Unescaped reports whether the path of a URL was written as it is. Where net/url would escape
// something in it, an empty RawPath says that it was written so: it has RawPath where it was not.
func Unescaped(u *url.URL) bool {
	if u.RawPath != "" {
		return u.RawPath == u.Path
	}
	return !strings.ContainsAny(u.Path, encodedByNetURL)
}

// urlOf is the URL that somebody gets who parses a clean path and a query.
func urlOf(p, query string) url.URL {
	u := url.URL{Path: p, RawQuery: query}
	if strings.ContainsAny(p, encodedByNetURL) {
		u.RawPath = p
	}
	return u
}

// validQuery reports whether a query holds visible ASCII only and no '#'.
func validQuery(q string) bool {
	for i := range len(q) {
		if q[i] <= ' ' || q[i] >= 0x7f || q[i] == '#' {
			return false
		}
	}
	return true
}
