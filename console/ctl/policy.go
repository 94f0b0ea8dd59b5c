package ctl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
)

func (t *tool) policy() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "look at what a policy would change, and have the host reload its own"}
	c.AddCommand(t.policyCheck(), t.changing("reload", "have the host read its policy again", nil,
		func(ctx context.Context, o *operator, _ []string) (proto.Message, string, error) {
			res, err := o.change.ReloadPolicy(ctx, connect.NewRequest(&adminv1.ReloadPolicyRequest{}))
			if err != nil {
				return nil, "", err
			}
			return res.Msg, "the policy is in force", nil
		}))
	return c
}

func (t *tool) policyCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Args: exactly("FILE"),
		Short: "say what would change if the host took over a policy; FILE is connectplugin.Policy as JSON",
		RunE: func(c *cobra.Command, args []string) error {
			document, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			return t.with(c.Context(), func(ctx context.Context, o *operator) error {
				res, err := o.read.CheckPolicy(ctx, connect.NewRequest(&adminv1.CheckPolicyRequest{Policy: document}))
				if connect.CodeOf(err) == connect.CodeInvalidArgument && err != nil {
					return &foundError{err}
				}
				switch {
				case err != nil:
					return err
				case t.json:
					return t.message(res.Msg, false)
				}
				return t.policyChanges(res.Msg)
			})
		},
	}
}

func (t *tool) policyChanges(m *adminv1.CheckPolicyResponse) error {
	words := map[adminv1.PolicyChange_Kind]string{
		adminv1.PolicyChange_KIND_IDENTITY_ENDS:     "ends",
		adminv1.PolicyChange_KIND_RIGHT_LOST:        "may no longer",
		adminv1.PolicyChange_KIND_RIGHT_GAINED:      "may now",
		adminv1.PolicyChange_KIND_REGISTRATION_ENDS: "loses its registration",
		adminv1.PolicyChange_KIND_GRANT_ENDS:        "loses its grant",
	}
	b := t.table("PLUGIN", "RUNTIME ID", "CHANGE", "RIGHT", "OF")
	slices.SortStableFunc(m.GetChanges(), func(a, b *adminv1.PolicyChange) int {
		return cmp.Or(cmp.Compare(a.GetSelfId(), b.GetSelfId()), cmp.Compare(a.GetRuntimeId(), b.GetRuntimeId()))
	})
	for _, c := range m.GetChanges() {
		b.row(c.GetSelfId(), c.GetRuntimeId(), words[c.GetKind()], c.GetRight(), c.GetSubject())
	}
	if err := b.end("nothing would change for those who are there now"); err != nil || m.GetOmitted() == 0 {
		return err
	}
	_, err := fmt.Fprintf(t.out, "(%d changes more are not shown)\n", m.GetOmitted())
	return err
}

// readPolicy reads a policy. Its secrets stay here: the host is told only that there are some.
func readPolicy(name string) (*adminv1.PolicyDocument, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var p connectplugin.Policy
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, &foundError{fmt.Errorf("%s: %w (the fields are those of connectplugin.Policy)", name, err)}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &foundError{fmt.Errorf("%s: something follows the policy", name)}
	}
	out := &adminv1.PolicyDocument{
		Plugins: map[string]*adminv1.PluginRules{}, AllowMultiple: p.AllowMultiple, Idempotent: p.Idempotent, Public: p.Public,
	}
	for plugin, rules := range p.Plugins {
		out.Plugins[plugin] = wireRules(&rules)
	}
	if p.Default != nil {
		out.Default = wireRules(p.Default)
	}
	return out, nil
}

func wireRules(p *connectplugin.PluginPolicy) *adminv1.PluginRules {
	return &adminv1.PluginRules{
		Provides: p.Provides, Requires: p.Requires, Capabilities: p.Capabilities, HostPlugins: p.HostPlugins, Procedures: p.Procedures,
		Endpoint: p.Endpoint, AllowOwnAddress: p.AllowOwnAddress, HasSecret: len(p.Secret) > 0, Certificates: p.Certificates,
		PinnedKeys: p.PinnedKeys, AllowUnproven: p.AllowUnproven, MaxInstances: uint32(max(p.MaxInstances, 0)), //nolint:gosec // it is small
		SelfIds: p.SelfIDs,
	}
}
