// Package target reads what a request is meant for (RFC 9110, section 7.1): the
// host that it names, the origin that it comes from, and its path. It refuses what
// two programs could read in two ways.
package target

import (
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// Names are the names and addresses under which a host may be reached. They are
// immutable once they are made.
type Names struct {
	names      map[string]struct{}
	configured bool // nothing else is a name
	open       bool // names that no foreign site can have are names
}

// NewNames takes the configured names or, where there are none, those of the address
// that the host listens on, which may be nil.
func NewNames(configured []string, listener net.Addr) *Names {
	n := &Names{names: map[string]struct{}{}, configured: len(configured) > 0}
	for _, name := range configured {
		n.add(name)
	}
	if !n.configured && listener != nil {
		n.addListener(listener)
	}
	return n
}

// Open returns names which, where none are configured and the host listens on every
// address, hold for addresses and names without a dot too. That is for plaintext, which has no
// certificate with names in it; a foreign site that has its visitors' browsers call the
// host under a name of its own (DNS rebinding) needs a name with a dot.
func (n *Names) Open(listener net.Addr) *Names {
	if n.configured || listener == nil {
		return n
	}
	addr, err := netip.ParseAddrPort(listener.String())
	if err != nil || !addr.Addr().IsUnspecified() {
		return n
	}
	out := *n
	out.open = true
	return &out
}

// Known reports whether an authority (host, or host and port) names the host; the
// port does not matter. Where no names are configured, those of the certificate count that
// the host showed on the request's connection; nil for none.
func (n *Names) Known(authority string, shown *x509.Certificate) bool {
	host := authority
	if h, _, err := net.SplitHostPort(authority); err == nil {
		host = h
	}
	host = plain(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if host == "" {
		return false
	}
	if _, ok := n.names[host]; ok {
		return true
	}
	if n.open {
		_, err := netip.ParseAddr(host)
		return err == nil || !strings.Contains(host, ".")
	}
	return !n.configured && shown != nil && shown.VerifyHostname(host) == nil
}

func (n *Names) add(name string) {
	n.names[plain(name)] = struct{}{}
}

// plain returns the one form of a name or address in which it is compared: the zone of an IPv6
// address means something on the machine alone that writes it, and an IPv4 address is the same
// in IPv6 (::ffff:10.0.0.1).
func plain(name string) string {
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Unmap().WithZone("").String()
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

func (n *Names) addListener(listener net.Addr) {
	host, _, err := net.SplitHostPort(listener.String())
	if err != nil {
		return
	}
	n.add(host)
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		n.add("localhost")
	}
}

// SameOrigin reports whether a request that names an origin comes from the host
// that it is for. Browsers of other sites always name theirs.
func SameOrigin(r *http.Request, plaintext bool) bool {
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return true
	}
	host, ok := strings.CutPrefix(origins[0], "https://")
	if !ok && plaintext {
		host, ok = strings.CutPrefix(origins[0], "http://")
	}
	return ok && len(origins) == 1 && host == r.Host
}

// CleanPath reports whether every program reads a request's path alike. It refuses
// escapes, dot segments, empty segments, backslashes, control and non-ASCII
// characters, and CONNECT, which has no path.
func CleanPath(r *http.Request) bool {
	return cleanPath(r, func(asked string) bool { return asked == r.URL.Path })
}

// CleanPathBelow is [CleanPath] for a handler that is mounted below a path, which was
// taken off ([http.StripPrefix]).
func CleanPathBelow(r *http.Request) bool {
	return cleanPath(r, func(asked string) bool { return strings.HasSuffix(asked, r.URL.Path) && proxy.CheckPath(asked) == nil })
}

func cleanPath(r *http.Request, same func(asked string) bool) bool {
	p := r.URL.Path
	if !proxy.Unescaped(r.URL) || r.URL.Fragment != "" || !strings.HasPrefix(p, "/") || r.Method == http.MethodConnect {
		return false
	}
	if asked, _, _ := strings.Cut(r.RequestURI, "?"); r.RequestURI != "" && !same(asked) {
		return false
	}
	return proxy.CheckPath(p) == nil
}
