package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
)

// Errors of endpoints.
var (
	// ErrEndpoint says that a base URL is not one that a provider may have.
	ErrEndpoint = errors.New("endpoint is not valid")
	// ErrAddress says that an endpoint leads to an address that no provider may
	// have, or to none.
	ErrAddress = errors.New("address is not allowed")
)

const (
	schemeTLS       = "https"
	schemePlaintext = "http"
	portTLS         = 443
	portPlaintext   = 80
)

// Resolver looks up the addresses of a host. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Endpoint is the checked base URL of a provider. The zero value is no endpoint.
// It is a value and safe for concurrent use.
type Endpoint struct {
	host      string
	port      uint16
	path      string
	plaintext bool
}

// ParseEndpoint checks a base URL: https, or http where plaintext is allowed,
// with a host and, if it has one, a clean path; without user, query and fragment.
// An error wraps [ErrEndpoint].
func ParseEndpoint(raw string, allowPlaintext bool) (Endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Endpoint{}, fmt.Errorf("%w: malformed", ErrEndpoint)
	}
	e := Endpoint{host: u.Hostname(), port: portTLS}
	switch {
	case u.Scheme == schemePlaintext && allowPlaintext:
		e.plaintext, e.port = true, portPlaintext
	case u.Scheme != schemeTLS:
		return Endpoint{}, fmt.Errorf("%w: scheme", ErrEndpoint)
	}
	if !isBase(u) {
		return Endpoint{}, fmt.Errorf("%w: more than a base URL", ErrEndpoint)
	}
	if !validHost(e.host) {
		return Endpoint{}, fmt.Errorf("%w: host", ErrEndpoint)
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return Endpoint{}, fmt.Errorf("%w: port", ErrEndpoint)
		}
		e.port = uint16(n)
	}
	if u.Path != "" && u.Path != "/" {
		if err := CheckPath(u.Path); err != nil {
			return Endpoint{}, fmt.Errorf("%w: %w", ErrEndpoint, err)
		}
		e.path = u.Path
	}
	return e, nil
}

// IsZero reports whether e is no endpoint.
func (e Endpoint) IsZero() bool { return e.host == "" }

// Plaintext reports whether the endpoint is reached without TLS.
func (e Endpoint) Plaintext() bool { return e.plaintext }

// Host returns the host name or address, without the port.
func (e Endpoint) Host() string { return e.host }

// String returns the base URL, with its port.
func (e Endpoint) String() string {
	scheme := schemeTLS
	if e.plaintext {
		scheme = schemePlaintext
	}
	return scheme + "://" + e.authority() + e.path
}

// Addresses looks up where the endpoint leads. Every address has to be one that a
// provider may have; otherwise, and if there is none, the error wraps
// [ErrAddress]. A nil resolver is [net.DefaultResolver].
func (e Endpoint) Addresses(ctx context.Context, resolver Resolver) ([]netip.AddrPort, error) {
	addrs, err := e.lookup(ctx, resolver)
	if err != nil {
		return nil, err
	}
	pinned := make([]netip.AddrPort, 0, len(addrs))
	for _, addr := range addrs {
		addr = addr.Unmap()
		if err := CheckAddress(addr); err != nil {
			return nil, err
		}
		pinned = append(pinned, netip.AddrPortFrom(addr, e.port))
	}
	if len(pinned) == 0 {
		return nil, fmt.Errorf("%w: none found", ErrAddress)
	}
	return pinned, nil
}

func (e Endpoint) lookup(ctx context.Context, resolver Resolver) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(e.host); err == nil {
		return []netip.Addr{addr}, nil
	}
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip", e.host)
	if err != nil {
		return nil, fmt.Errorf("resolve provider: %w", err)
	}
	return addrs, nil
}

// isBase reports whether a URL has nothing but scheme, host, port and path.
func isBase(u *url.URL) bool {
	return u.User == nil && u.Opaque == "" && Unescaped(u) && u.RawQuery == "" && !u.ForceQuery && u.Fragment == ""
}

// authority is the host and port as the provider sees them.
func (e Endpoint) authority() string {
	return net.JoinHostPort(e.host, strconv.Itoa(int(e.port)))
}

// validHost reports whether h is an address without a zone or a name of letters,
// digits, '-', '_' and '.'. A name whose last label is numeric is neither: some
// resolvers take it for an IPv4 address.
func validHost(h string) bool {
	if addr, err := netip.ParseAddr(h); err == nil {
		return addr.Zone() == ""
	}
	lastLabel := 0
	for i := range len(h) {
		c := h[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.' && i > lastLabel:
			lastLabel = i + 1
		default:
			return false
		}
	}
	return lastLabel < len(h) && !numericLabel(h[lastLabel:])
}

// numericLabel reports whether a label is a number as inet_aton reads it.
func numericLabel(label string) bool {
	_, err := strconv.ParseUint(label, 0, 64)
	return err == nil
}
