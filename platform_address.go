package connectplugin

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// localURL returns the base URL at which programs on this machine reach a host that listens
// on an address, nil where it is none of the network.
func localURL(cfg *ServeConfig, addr net.Addr) *string {
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return nil
	}
	ip := at.Addr().Unmap()
	switch {
	case ip.IsUnspecified() && ip.Is4():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case ip.IsUnspecified():
		ip = netip.IPv6Loopback()
	}
	name := ip.WithZone("").String()
	if len(cfg.Hosts) > 0 && !slices.Contains(cfg.Hosts, name) {
		name = cfg.Hosts[0] // the only names under which the host answers
	}
	scheme := "https://"
	if cfg.AllowInsecure {
		scheme = "http://"
	}
	url := scheme + net.JoinHostPort(name, strconv.Itoa(int(at.Port())))
	return &url
}
