package host_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A policy that cannot be read, and one that is nothing, change nothing. The log of the host says why, with what the operator's function
// said; the audit says that it failed, and to the operator and there is only said what of that is the host's own.
func TestAdmin_ReloadThatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		load        func(context.Context) (*connectplugin.Policy, error)
		logs, tells string
	}{
		"no function": {},
		"unreadable": {
			load: func(context.Context) (*connectplugin.Policy, error) {
				return nil, errors.New("policy.json:7: no comma")
			},
			logs:  "policy.json:7: no comma",
			tells: "AdminConfig.LoadPolicy failed, and the log of the host says why",
		},
		"panics": {
			load:  func(context.Context) (*connectplugin.Policy, error) { panic("no file") },
			logs:  "AdminConfig.LoadPolicy panicked: no file",
			tells: "AdminConfig.LoadPolicy failed, and the log of the host says why",
		},
		"nothing": {
			load:  func(context.Context) (*connectplugin.Policy, error) { return nil, nil }, //nolint:nilnil // what is tested
			logs:  "AdminConfig.LoadPolicy returned no policy",
			tells: "AdminConfig.LoadPolicy failed, and the log of the host says why",
		},
		"invalid": {
			load: func(context.Context) (*connectplugin.Policy, error) {
				return &connectplugin.Policy{Idempotent: []string{"no procedure"}}, nil
			},
			logs:  "Idempotent",
			tells: "Idempotent",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log hosttest.Buffer
			host := administered(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Admin.LoadPolicy, cfg.Logger = c.load, slog.New(slog.NewTextHandler(&log, nil))
			})
			operator := host.Enrol(t, "operator", nil)
			_, err := changer(host, operator.HTTPClient()).ReloadPolicy(t.Context(), connect.NewRequest(&adminv1.ReloadPolicyRequest{}))
			wantCode(t, "reload", err, connect.CodeFailedPrecondition)
			snapshot(t, reader(host, operator.HTTPClient())) // it is there as before
			if c.load == nil {
				return
			}
			if said := log.String(); !strings.Contains(said, "the policy was not reloaded, and stays as it is") || !strings.Contains(said, c.logs) {
				t.Errorf("the log does not say %q: %s", c.logs, said)
			}
			if !strings.Contains(err.Error(), c.tells) || c.logs != c.tells && strings.Contains(err.Error(), c.logs) {
				t.Errorf("the operator is told %v", err)
			}
			if !slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
				return e.Kind == connectplugin.AuditAdministered && e.SelfID == "operator" &&
					strings.HasPrefix(e.Reason, "the policy was not reloaded, and stays as it is: ") && strings.Contains(e.Reason, c.tells)
			}) {
				t.Errorf("the audit has no such event: %v", host.Audit.Events())
			}
		})
	}
}
