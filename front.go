package connectplugin

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// front is the host's outermost handler: it refuses what was not meant for this
// host and finds the route of the rest.
type front struct {
	hub   *hub
	names atomic.Pointer[hostNames]
	table routeTable
	// draining reports that the host takes no new work.
	draining func() bool
}

// ServeHTTP refuses foreign hosts and origins, unclean paths and unknown routes.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(headerCacheControl, noStore)
	switch {
	case !f.names.Load().known(r.Host) || !f.sameOrigin(r):
		f.note(r, "foreign Host or Origin")
		refuse(w, r, connect.CodePermissionDenied, errDenied)
		return
	case !cleanRequestPath(r):
		f.note(r, "unclean path")
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	case f.draining():
		refuse(w, r, connect.CodeUnavailable, errShuttingDown)
		return
	}
	handler, ok := f.table.lookup(r.URL.Path)
	if !ok {
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	}
	handler.ServeHTTP(w, r)
}

func (f *front) note(r *http.Request, reason string) {
	f.hub.auditCall(withPeer(r.Context(), newPeer(r)), AuditDenied, r.URL.Path, "", reason)
}

// sameOrigin reports whether a request that names an origin comes from this
// host. Browsers of other sites always name theirs.
func (f *front) sameOrigin(r *http.Request) bool {
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return true
	}
	host, ok := strings.CutPrefix(origins[0], "https://")
	if !ok && f.hub.config().AllowInsecure {
		host, ok = strings.CutPrefix(origins[0], "http://")
	}
	return ok && len(origins) == 1 && host == r.Host
}

// cleanRequestPath refuses every path that another program could read
// differently: escapes, dot segments, empty segments, backslashes, control and
// non-ASCII characters.
func cleanRequestPath(r *http.Request) bool {
	p := r.URL.Path
	if r.URL.RawPath != "" || r.URL.Fragment != "" || !strings.HasPrefix(p, "/") || r.Method == http.MethodConnect {
		return false
	}
	if i := strings.IndexByte(r.RequestURI, '?'); i >= 0 {
		if r.RequestURI[:i] != p {
			return false
		}
	} else if r.RequestURI != "" && r.RequestURI != p {
		return false
	}
	return proxy.CheckPath(p) == nil
}

// hostNames are the names and addresses under which the host may be reached.
type hostNames struct {
	names map[string]struct{}
	leaf  *x509.Certificate // nil where none is known beforehand
}

// newHostNames takes the configured names or, where there are none, those of the
// certificate and of the listener.
func newHostNames(configured []string, serverTLS *tls.Config, listener net.Addr) *hostNames {
	n := &hostNames{names: map[string]struct{}{}}
	for _, name := range configured {
		n.add(name)
	}
	if len(configured) > 0 {
		return n
	}
	if listener != nil {
		n.addListener(listener)
	}
	if serverTLS != nil {
		n.leaf = serverLeaf(serverTLS)
	}
	return n
}

func (n *hostNames) add(name string) {
	n.names[strings.ToLower(strings.TrimSuffix(name, "."))] = struct{}{}
}

func (n *hostNames) addListener(listener net.Addr) {
	host, _, err := net.SplitHostPort(listener.String())
	if err != nil {
		return
	}
	n.add(host)
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		n.add("localhost")
	}
}

// known reports whether an authority names this host; the port does not matter.
func (n *hostNames) known(authority string) bool {
	host := authority
	if h, _, err := net.SplitHostPort(authority); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" {
		return false
	}
	if _, ok := n.names[host]; ok {
		return true
	}
	return n.leaf != nil && n.leaf.VerifyHostname(host) == nil
}

// serverLeaf returns the certificate that a server configuration presents, nil
// where it depends on the client.
func serverLeaf(cfg *tls.Config) *x509.Certificate {
	var cert *tls.Certificate
	switch {
	case len(cfg.Certificates) > 0:
		cert = &cfg.Certificates[0]
	case cfg.GetCertificate != nil:
		cert, _ = cfg.GetCertificate(&tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}})
	}
	if cert == nil || len(cert.Certificate) == 0 {
		return nil
	}
	if cert.Leaf != nil {
		return cert.Leaf
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil
	}
	return leaf
}
