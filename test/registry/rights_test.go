package registry_test

import (
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Effective is what was declared and what policy allows, and nothing else.
func TestAudit_REG1_RegistersOnlyWhatIsDeclaredAndAllowed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		declared, allowed []string
		ok                bool
	}{
		"declared and allowed": {[]string{"a"}, []string{"a"}, true},
		"everything allowed":   {[]string{"a"}, []string{"*"}, true},
		"not declared":         {[]string{"b"}, []string{"a"}, false},
		"not allowed":          {[]string{"a"}, []string{"b"}, false},
		"nothing declared":     {nil, []string{"*"}, false},
		"nothing allowed":      {[]string{"a"}, nil, false},
		"a star declared":      {nil, []string{"a"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"p": {c.allowed, nil}})))
			p := host.Enrol(t, "p", hosttest.Declaring(c.declared, nil))
			_, err := hosttest.Register(t, p, "a", "1.0.0")
			if c.ok && err != nil || !c.ok && connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("register: %v, want ok: %t", err, c.ok)
			}
			if host.Registered("a", p.RuntimeID()) != c.ok || host.Audit.Has(connectplugin.AuditDenied) == c.ok {
				t.Error("registered or audited wrongly")
			}
		})
	}
}

func TestAudit_REG2_ATypeBelongsToItsFirstProvider(t *testing.T) {
	t.Parallel()
	policy := hosttest.Rights(map[string][2][]string{"owner": {{"a", "open"}, nil}, "rival": {{"a", "open"}, nil}, "c": {nil, {"a"}}})
	policy.AllowMultiple = []string{"open"}
	host := hosttest.Start(t, hosttest.WithPolicy(policy))
	owner, second, rival := host.Enrol(t, "owner", hosttest.Providing("a", "open")), host.Enrol(t, "owner", hosttest.Providing("a")), host.Enrol(t, "rival", hosttest.Providing("a", "open"))
	w := hosttest.Watch(t, host.Enrol(t, "c", hosttest.Requiring("a")), host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
	w.Next(t)
	ids := map[*connectplugin.Client]string{}
	for _, c := range []*connectplugin.Client{owner, second} {
		id, err := hosttest.Register(t, c, "a", "1.0.0")
		if err != nil {
			t.Fatal(err)
		}
		ids[c] = id
		w.Next(t)
	}
	_, err := hosttest.Register(t, rival, "a", "99.0.0")
	if connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("the rival: %v, want already_exists", err)
	}
	if !host.Audit.Has(connectplugin.AuditConflict) {
		t.Error("the conflict was not audited")
	}
	if got, err := hosttest.Discover(t, host.Enrol(t, "c", hosttest.Requiring("a")), "a", ""); err != nil || got.GetEndpoint().GetProviderId() != owner.RuntimeID() {
		t.Errorf("discovered %v, %v", got, err)
	}
	if code := w.Code(hosttest.Moment); code != 0 || len(w.Events) > 0 {
		t.Errorf("watchers noticed the attempt: %v, %d events", code, len(w.Events))
	}
	for _, c := range []*connectplugin.Client{owner, rival} {
		if _, err := hosttest.Register(t, c, "open", "1.0.0"); err != nil {
			t.Errorf("a type that is open to several: %v", err)
		}
	}
	for _, c := range []*connectplugin.Client{owner, second} {
		if _, err := hosttest.Register(t, rival, "a", "1.0.0"); connect.CodeOf(err) != connect.CodeAlreadyExists {
			t.Errorf("the rival while an instance of the owner is there: %v", err)
		}
		if err := hosttest.Unregister(t, c, ids[c]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := hosttest.Register(t, rival, "a", "1.0.0"); err != nil {
		t.Errorf("the rival once the type is free: %v", err)
	}
}

// Only the owner unregisters. The registration id is no authority, and whether it
// exists cannot be told.
func TestAudit_REG8_REGTOKEN4_ForeignUnregister(t *testing.T) {
	t.Parallel()
	policy := hosttest.LoggerPolicy()
	policy.Plugins["admin"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) {
		p.Provides, p.Requires, p.Capabilities, p.HostPlugins = []string{"*"}, []string{"*"}, []string{"*"}, []string{"*"}
	})
	host := hosttest.Start(t, hosttest.WithPolicy(policy))
	owner := host.Enrol(t, "logger", hosttest.Providing("logger"))
	id, err := hosttest.Register(t, owner, "logger", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	for name, attacker := range map[string]*connectplugin.Client{
		"another plugin":               host.Enrol(t, "api", hosttest.Requiring("logger")),
		"another instance of its kind": host.Enrol(t, "logger", hosttest.Providing("logger")),
		"one that may do everything":   host.Enrol(t, "admin", hosttest.Declaring([]string{"logger"}, []string{"logger"})),
	} {
		foreign, unknown := hosttest.Unregister(t, attacker, id), hosttest.Unregister(t, attacker, "reg-ABCDEFGHIJKLMNOPQRSTUVWXYZ")
		if connect.CodeOf(foreign) != connect.CodeNotFound || foreign.Error() != unknown.Error() {
			t.Errorf("%s: foreign id: %v, unknown id: %v", name, foreign, unknown)
		}
	}
	if !host.Registered("logger", owner.RuntimeID()) {
		t.Fatal("the registration is gone")
	}
	if !host.Audit.Has(connectplugin.AuditDenied) {
		t.Error("the attempts were not audited")
	}
	if err := hosttest.Unregister(t, owner, id); err != nil || host.Registered("logger", owner.RuntimeID()) {
		t.Errorf("the owner: %v", err)
	}
	if err := hosttest.Unregister(t, owner, id); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("the owner once more: %v", err)
	}
}
