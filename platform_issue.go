package connectplugin

import (
	"errors"
	"strings"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

var (
	errNoPolicy = errors.New("policy does not know the self id: add it to Policy.Plugins, or set Policy.Default")
	errBarred   = errors.New("the self id is revoked: Host.Readmit admits it again")
)

// issueOwn issues an identity by the host's own decision, within its policy. edit may add to
// the declaration before anybody sees it.
func (h *hub) issueOwn(selfID, selfVersion string, m PluginMetadata, edit func(*declaration)) (*tokenstore.Identity, string, error) {
	d := everything
	d.endpoint, d.dependencies = new(ownEndpoint), m.Requires
	if len(m.Provides)+len(m.Requires) > 0 {
		requires := make([]string, 0, len(m.Requires))
		for _, r := range m.Requires {
			requires = append(requires, r.Type)
		}
		d.provides, d.requires = newNameSet(typesOf(m.Provides)), newNameSet(requires)
	}
	edit(&d)
	rules, _ := h.rules.Load().rules(selfID, d.certIdentity)
	switch {
	case rules == nil:
		return nil, "", errNoPolicy
	case h.launches.Barred(selfID):
		return nil, "", errBarred
	}
	id, token, err := h.store.Issue(tokenstore.Request{
		SelfID: selfID, SelfVersion: selfVersion, Attributes: &d, MaxInstances: rules.maxInstances,
	})
	if err != nil {
		return nil, "", err
	}
	if h.launches.Barred(selfID) || h.rulesOf(id) == nil { // meanwhile
		h.store.Revoke(id.RuntimeID(), tokenstore.ReasonPolicy)
		return nil, "", errNoPolicy
	}
	h.audit(AuditEvent{Kind: AuditIssued, RuntimeID: id.RuntimeID(), SelfID: selfID, Reason: "by the host itself"})
	return id, token, nil
}

// ofRuntime matches the registrations of one plugin.
func ofRuntime(runtimeID string) func(catalog.Registration) bool {
	return func(reg catalog.Registration) bool { return reg.RuntimeID == runtimeID }
}

// below reports whether a path is one that a registration covers.
func below(registered, path string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(registered, "/"))
	return ok && (rest == "" || rest[0] == '/')
}
