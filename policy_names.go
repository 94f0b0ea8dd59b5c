package connectplugin

import (
	"fmt"
	"maps"
	"slices"

	"github.com/masegraye/connect-plugin-go/internal/policy"
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
