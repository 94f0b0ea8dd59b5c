package target

import (
	"net"
	"net/netip"
)

// LeadsTo reports whether who dials a host and port from this machine comes to a listener of it, as far as its address tells: a name
// other than localhost tells nothing.
func LeadsTo(listener, host, port string) bool {
	at, err := netip.ParseAddrPort(listener)
	if _, own, split := net.SplitHostPort(listener); err != nil || split != nil || own != port {
		return false
	}
	dialled := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	if plain(host) != "localhost" {
		addr, err := netip.ParseAddr(plain(host))
		if err != nil {
			return false
		}
		dialled = []netip.Addr{addr}
	}
	for _, addr := range dialled {
		if takes(at.Addr().WithZone(""), addr) {
			return true
		}
	}
	return false
}

// takes reports whether a connection from this machine to an address comes to who listens on another one.
func takes(at, addr netip.Addr) bool {
	if !at.IsUnspecified() {
		return at.Unmap() == addr
	}
	return (at.Is6() || addr.Is4()) && (addr.IsLoopback() || isLocal(addr)) // a listener on [::] has both kinds
}

// isLocal reports whether an interface of this machine has an address.
func isLocal(addr netip.Addr) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range own {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}
