package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// endpointFor settles where a registering plugin is dialled: where policy says,
// or where the plugin says if policy lets it and the address is the one that it
// registers from; own says that it is the latter. Empty means nowhere yet. The
// error is for the log.
func (h *hub) endpointFor(ctx context.Context, id *tokenstore.Identity, baseURL string) (endpoint string, own bool, err error) {
	rules := h.rulesOf(id)
	switch {
	case rules == nil:
		return "", false, errors.New("policy does not know the plugin")
	case h.launchOf(id) != nil:
		// The host started it: where it listens is no matter of policy, and nobody else
		// has the certificate with which it has to answer there.
		if baseURL == "" || h.launchOf(id).Identity == "" { // adopted: the operator says where it is
			return "", false, nil
		}
		endpoint, err = h.pinToCaller(ctx, baseURL)
		return endpoint, false, err
	case rules.endpoint != nil:
		return rules.endpoint.String(), false, nil
	case baseURL == "":
		return "", false, nil
	case !rules.allowOwnAddress:
		return "", false, errors.New("the plugin names its own base_url and policy does not allow it: " +
			"set PluginPolicy.Endpoint or AllowOwnAddress")
	}
	endpoint, err = h.pinToCaller(ctx, baseURL)
	return endpoint, true, err
}

// pinToCaller pins a base URL to the address that the caller calls from.
func (h *hub) pinToCaller(ctx context.Context, baseURL string) (string, error) {
	p, ok := peerFrom(ctx)
	if !ok {
		return "", errors.New("the plugin's address is not known")
	}
	return pinToPeer(ctx, baseURL, p.addr, h.config().AllowInsecure)
}

// pinToPeer pins a plugin's base URL to the address that the plugin registers
// from.
func pinToPeer(ctx context.Context, baseURL, from string, allowInsecure bool) (string, error) {
	u, err := parseHostURL(baseURL, allowInsecure)
	if err != nil {
		return "", fmt.Errorf("base_url: %w", err)
	}
	addr, err := netip.ParseAddr(from)
	if err != nil {
		return "", fmt.Errorf("peer address %q: %w", from, err)
	}
	if err := proxy.CheckAddress(addr); err != nil {
		return "", fmt.Errorf("base_url: %w", err)
	}
	addrs, err := resolve(ctx, u.Hostname())
	if err != nil {
		return "", fmt.Errorf("base_url: %w", err)
	}
	for _, a := range addrs {
		if a.Unmap() == addr {
			u.Host = net.JoinHostPort(addr.String(), cmp.Or(u.Port(), defaultPorts[u.Scheme]))
			return u.String(), nil
		}
	}
	return "", fmt.Errorf("base_url names another address than %s, from which the plugin registers", from)
}

var defaultPorts = map[string]string{"https": "443", "http": "80"}

func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", host, err)
	}
	return addrs, nil
}
