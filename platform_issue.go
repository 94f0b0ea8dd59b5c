package connectplugin

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

var (
	errNoPolicy = errors.New("policy does not know the self id: add it to Policy.Plugins, or set Policy.Default")
	errBarred   = errors.New("the self id is revoked: Host.Readmit admits it again")
)

// issueOwn issues an identity by the host's own decision, within its policy. edit may add to
// the declaration before anybody sees it.
func (h *hub) issueOwn(selfID, selfVersion string, m PluginMetadata, edit func(*declaration)) (*tokenstore.Identity, string, error) {
	d := undeclared
	d.endpoint, d.dependencies = new(ownEndpoint), m.Requires
	if len(m.Provides)+len(m.Requires) > 0 {
		requires := make([]string, 0, len(m.Requires))
		for _, r := range m.Requires {
			requires = append(requires, r.Type)
		}
		d.provides, d.requires = policy.NewSet(typesOf(m.Provides)), policy.NewSet(requires)
	}
	edit(&d)
	rules, _ := h.rules.Load().Rules(selfID, d.certIdentity)
	switch {
	case rules == nil:
		return nil, "", errNoPolicy
	case h.launches.Barred(selfID):
		return nil, "", errBarred
	}
	id, token, err := h.store.Issue(tokenstore.Request{
		SelfID: selfID, SelfVersion: selfVersion, Attributes: &d, MaxInstances: rules.MaxInstances,
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

// renewAdopted gives an adopted plugin a new token before the current one ends.
func (p *Platform) renewAdopted(ctx context.Context, a *adoption) {
	for failures := 0; ; {
		wait := time.Duration(float64(time.Until(a.id.ExpiresAt())) * renewAfter)
		if failures > 0 {
			wait = backoff.Reconnect.After(failures)
		}
		if !backoff.Wait(ctx, max(wait, renewFloor)) {
			return
		}
		if err := p.renewOnce(ctx, a); err != nil {
			failures++
			p.log().Warn("the token of an adopted plugin is not renewed", keyRuntimeID, a.id.RuntimeID(), keyError, err)
			continue
		}
		failures = 0
	}
}

func (p *Platform) renewOnce(ctx context.Context, a *adoption) error {
	hostURL, err := p.hostURL("")
	if err != nil {
		return err
	}
	a.mu.Lock()
	current, untold := a.token, a.untold
	a.mu.Unlock()
	if !untold {
		if _, current, err = p.hub().store.Renew(a.id.RuntimeID(), current, a.id.Fingerprint()); err != nil {
			return err
		}
		a.mu.Lock()
		a.token, a.untold = current, true
		a.mu.Unlock()
	}
	client := NewPluginIdentityClient(pluginBase, p.callPlugin(a.id.RuntimeID()))
	if err := client.set(ctx, a.id.RuntimeID(), current, hostURL, a.id.ExpiresAt()); err != nil {
		return err
	}
	a.mu.Lock()
	a.untold = false
	a.mu.Unlock()
	return nil
}
