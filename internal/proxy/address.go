package proxy

import (
	"fmt"
	"net/netip"
)

// forbiddenPrefixes are the networks that no provider may have: the metadata
// services of cloud platforms beside the link-local one, "this network",
// broadcast, and addresses set aside for other protocols.
var forbiddenPrefixes = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("192.0.0.192/32"),
	netip.MustParsePrefix("fd00:ec2::/32"),
	netip.MustParsePrefix("fd20:ce::254/128"),
	netip.MustParsePrefix("::/96"),          // IPv4-compatible, but for ::1
	netip.MustParsePrefix("2002::/16"),      // 6to4
	netip.MustParsePrefix("2001::/32"),      // Teredo
	netip.MustParsePrefix("fec0::/10"),      // site-local
	netip.MustParsePrefix("100::/64"),       // discard
	netip.MustParsePrefix("64:ff9b::/96"),   // NAT64
	netip.MustParsePrefix("64:ff9b:1::/48"), // local NAT64
}

// CheckAddress reports whether a provider may have the address: it is a unicast
// address, not link-local, not unspecified, not one of a cloud platform's
// metadata service, and not an IPv6 address that stands for an IPv4 one. The
// error wraps [ErrAddress].
func CheckAddress(addr netip.Addr) error {
	addr = addr.Unmap()
	switch {
	case !addr.IsValid(), addr.Zone() != "":
		return fmt.Errorf("%w: malformed", ErrAddress)
	case addr.IsLoopback():
		return nil
	case addr.IsUnspecified(), addr.IsMulticast(), addr.IsLinkLocalUnicast():
		return fmt.Errorf("%w: %s", ErrAddress, addr)
	}
	for _, prefix := range forbiddenPrefixes {
		if prefix.Contains(addr) {
			return fmt.Errorf("%w: %s", ErrAddress, addr)
		}
	}
	return nil
}
