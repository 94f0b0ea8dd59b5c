package connectplugin

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// validateNames refuses certificate identities in a policy that no certificate can
// have, and those that every certificate would.
func (p *Policy) validateNames() error {
	if p == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.Plugins)) {
		field := fmt.Sprintf("Policy.Plugins[%q]", name)
		if name == policy.Any {
			return fieldError(field, "is no wildcard; write the policy of those that no entry names into Policy.Default")
		}
		if err := validateIdentityName(field, name); err != nil {
			return err
		}
		if err := validateCertificates(field, p.Plugins[name].Certificates); err != nil {
			return err
		}
	}
	if p.Default == nil {
		return nil
	}
	return validateCertificates("Policy.Default", p.Default.Certificates)
}

func validateCertificates(plugin string, identities []string) error {
	for i, identity := range identities {
		field := fmt.Sprintf("%s.Certificates[%d]", plugin, i)
		switch identity {
		case "":
			return fieldError(field, "is empty; write the identity of a certificate")
		case policy.Any:
			return fieldError(field, "would let whoever has a certificate be this plugin; write the identities that it may have, "+
				"or set HandshakeAuth.RequireCertificate where every plugin needs a certificate and something else proves who it is")
		}
		if err := validateIdentityName(field, identity); err != nil {
			return err
		}
	}
	return nil
}

// reserveEndpoints keeps the endpoints that policy names for those whom it names.
func reserveEndpoints(b *policy.Book) {
	reserve := func(name string, r *policy.Rules) {
		if site, err := catalog.ParseSite(r.Endpoint); err == nil { // else none is named
			b.Reserve(policy.Named{Plugin: name, Rules: r, Host: site.Host(), Port: site.Port()})
		}
	}
	for name, r := range b.Plugins {
		reserve(name, r)
	}
	if b.Default != nil {
		reserve("Default", b.Default)
	}
}

// reserved returns whom policy names for an endpoint, other than the plugin itself.
func (h *hub) reserved(book *policy.Book, id *tokenstore.Identity, endpoint string, names func(named, host string) bool) (owner string, ok bool) {
	site, err := catalog.ParseSite(endpoint)
	if err != nil {
		return "", false
	}
	return book.Reserved(subjectOf(id), site.Port(), func(named string) bool { return names(named, site.Host()) })
}

// outbid reports whether policy names the endpoint that a plugin named for another.
func (h *hub) outbid(id *tokenstore.Identity) bool {
	own := declared(id).endpoint.text()
	_, ok := h.reserved(h.rules.Load(), id, own, sameHost)
	return own != "" && ok
}

// sameHost compares hosts without asking anybody.
func sameHost(named, host string) bool {
	addr, err := netip.ParseAddr(host)
	return named == host || named == "localhost" && err == nil && addr.IsLoopback()
}

// namesAddress compares hosts, of which the operator's may be a name.
func namesAddress(ctx context.Context) func(named, host string) bool {
	return func(named, host string) bool {
		if sameHost(named, host) {
			return true
		}
		addrs, err := resolve(ctx, named)
		return err == nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap().String() == host })
	}
}
