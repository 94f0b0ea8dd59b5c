package proxy

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// pinned is where a plugin is dialled that named itself: a name, and the address that it had when it registered.
type pinned netip.Addr

// LookupNetIP implements Resolver.
func (p pinned) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.Addr(p)}, nil
}

// Unpin returns the base URL under which a plugin answers at an endpoint, of which a name may stand behind "#", and where that is
// looked up: nil means by the system.
func Unpin(endpoint string) (baseURL string, resolver Resolver) {
	at, name, _ := strings.Cut(endpoint, "#")
	u, err := url.Parse(at)
	if err != nil || name == "" {
		return endpoint, nil
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return endpoint, nil
	}
	u.Host = net.JoinHostPort(name, u.Port())
	return u.String(), pinned(addr)
}
