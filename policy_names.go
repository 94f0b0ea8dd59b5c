package connectplugin

import (
	"fmt"
	"maps"
	"slices"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// validateNames refuses certificate identities in a policy that no certificate can
// have, and those that every certificate would.
func (p *Policy) validateNames() error {
	if p == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.Plugins)) {
		field := fmt.Sprintf("Policy.Plugins[%q]", name)
		if name == anything {
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
		case anything:
			return fieldError(field, "would let whoever has a certificate be this plugin; write the identities that it may have, "+
				"or set HandshakeAuth.RequireCertificate where every plugin needs a certificate and something else proves who it is")
		}
		if err := validateIdentityName(field, identity); err != nil {
			return err
		}
	}
	return nil
}

// validateIdentityName refuses a name that no certificate can have, because it is a
// SPIFFE id against the standard. Empty is accepted.
func validateIdentityName(field, identity string) error {
	if identity == anything {
		return fieldError(field, `"*" is nobody; write the identity of one certificate`)
	}
	if !certs.IsSPIFFE(identity) {
		return nil
	}
	if err := certs.ValidateSPIFFE(identity); err != nil {
		return fieldError(field, "%v; write spiffe://<trust domain>/<path>, as it stands in the certificate", err)
	}
	return nil
}
