package catalog

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Site is where somebody answers: a host and a port, in the one spelling that
// [ParseSite] gives it. It does not matter what is spoken there.
type Site string

// Host returns the host of a site.
func (s Site) Host() string {
	host, _, _ := strings.Cut(string(s), " ")

	return host
}

// Port returns the port of a site.
func (s Site) Port() string {
	_, port, _ := strings.Cut(string(s), " ")

	return port
}

// Ports that a URL need not state.
var schemePorts = map[string]string{"https": "443", "http": "80"}

// ParseSite returns the site of a base URL: the host in lower case without a final
// dot, an address in its shortest form without a zone and, where it is an IPv4 address
// inside of an IPv6 one, as that, and the port, which the scheme may say. The error is
// an [ErrInvalid].
func ParseSite(endpoint string) (Site, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", fmt.Errorf("%w: endpoint is no URL", ErrInvalid)
	}

	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.Unmap().WithZone("").String()
	}

	port := u.Port()
	if port == "" {
		port = schemePorts[strings.ToLower(u.Scheme)]
	}

	n, err := strconv.ParseUint(port, 10, 16)
	if host == "" || err != nil || n == 0 {
		return "", fmt.Errorf("%w: endpoint has no host or no port", ErrInvalid)
	}

	return Site(host + " " + strconv.FormatUint(n, 10)), nil
}

// tenant is a runtime at the site where it is reached.
type tenant struct {
	runtimeID, selfID, proof string
	site                     Site
	byHost                   bool // the host said so; else the runtime itself did
	proven                   bool // it showed that it answers there when it came
	beside                   bool // others of the same plugin stay
}

// same reports whether two tenants are lives of one plugin.
func (t *tenant) same(other *tenant) bool {
	return t.selfID == other.selfID && t.proof == other.proof
}

// ledger knows who is reached where. A runtime is reached at one site; a site belongs
// to one self id, except where the host itself says otherwise. It is guarded by the
// catalogue's lock.
type ledger struct {
	at map[Site][]*tenant
	of map[string]*tenant
}

func newLedger() ledger {
	return ledger{at: make(map[Site][]*tenant), of: make(map[string]*tenant)}
}

// owner returns the one that keeps another from a site, nil where nobody does. Who shows
// that it answers there gives way to the host alone.
func (l *ledger) owner(t *tenant) *tenant {
	for _, other := range l.at[t.site] {
		if !other.same(t) && (other.byHost || !t.proven) {
			return other
		}
	}

	return nil
}

// settle gives a site to a tenant, and returns those who had it and have it no more:
// earlier lives of the same plugin, and where the host says so, or the tenant showed that
// it answers there, whoever had named it itself. A plugin that is there already is no later life of
// those who are there beside it.
func (l *ledger) settle(t *tenant) (gone []*tenant) {
	before := l.of[t.runtimeID]
	beside := t.beside || before != nil && before.site == t.site

	l.release(t.runtimeID)

	for _, other := range l.at[t.site] {
		if other.same(t) && !beside || !other.same(t) && (t.byHost || t.proven) && !other.byHost {
			gone = append(gone, other)
		}
	}

	for _, other := range gone {
		l.release(other.runtimeID)
	}

	l.at[t.site] = append(l.at[t.site], t)
	l.of[t.runtimeID] = t

	return gone
}

// release lets go of a runtime's site.
func (l *ledger) release(runtimeID string) {
	t := l.of[runtimeID]
	if t == nil {
		return
	}

	delete(l.of, runtimeID)

	rest := make([]*tenant, 0, len(l.at[t.site]))

	for _, other := range l.at[t.site] {
		if other != t {
			rest = append(rest, other)
		}
	}

	if len(rest) == 0 {
		delete(l.at, t.site)

		return
	}

	l.at[t.site] = rest
}
