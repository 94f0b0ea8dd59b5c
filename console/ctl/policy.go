package ctl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/internal/bom"
)

func (t *tool) policy() *cobra.Command {
	reload := t.changing("reload", "have the host read its policy again", nil,
		func(ctx context.Context, o *operator, _ []string) (proto.Message, string, error) {
			res, err := o.change.ReloadPolicy(ctx, connect.NewRequest(&adminv1.ReloadPolicyRequest{}))
			if err != nil {
				return nil, "", err
			}
			return res.Msg, "the policy is in force", nil
		})
	return group("policy", "look at what a policy would change, and have the host reload its own", t.policyCheck(), reload)
}

func (t *tool) policyCheck() *cobra.Command {
	var offline bool
	c := &cobra.Command{
		Use: "check [FILE]", Args: cobra.MaximumNArgs(1),
		Short: "say what would change if the host reloaded its policy, or took over FILE, which is connectplugin.Policy as JSON",
		RunE: func(c *cobra.Command, args []string) error {
			var document *adminv1.PolicyDocument // nil asks for what a reload would take over
			if len(args) > 0 {
				p, err := readPolicy(args[0])
				if err != nil {
					return err
				}
				for _, warning := range slices.Concat(sharedEndpoints(p), unprovided(p)) {
					fmt.Fprintln(t.err, line(warning))
				}
				if offline {
					return t.takes(args[0], p)
				}
				document = wirePolicy(p)
			}
			if offline {
				return wrongUsage("--offline asks no host, so it needs the FILE to check")
			}
			return t.with(c.Context(), func(ctx context.Context, o *operator) error {
				res, err := o.read.CheckPolicy(ctx, connect.NewRequest(&adminv1.CheckPolicyRequest{Policy: document}))
				if err != nil && (connect.CodeOf(err) == connect.CodeInvalidArgument || document == nil && o.unloadable(ctx, err)) {
					return &foundError{err}
				}
				switch {
				case err != nil:
					return err
				case t.json:
					return t.message(res.Msg, false)
				}
				return t.policyChanges(res.Msg, document != nil)
			})
		},
	}
	c.Flags().BoolVar(&offline, "offline", false, "ask no host: say whether one would take FILE, where none is at hand")
	return c
}

// takes says whether a host over TLS would take a policy, for who has none to ask, such as a check of each change of the file.
func (t *tool) takes(name string, p *connectplugin.Policy) error {
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{}) // a host has one, or certificates
	if err != nil {
		return err
	}
	if err := (&connectplugin.ServeConfig{Authority: authority, Policy: p}).Validate(); err != nil {
		return &foundError{fmt.Errorf("%s: %w", name, err)}
	}
	if t.json {
		return json.NewEncoder(t.out).Encode(map[string]int{"plugins": len(p.Plugins)})
	}
	fmt.Fprintf(t.out, "a host would take it: %d plugins (none was asked what it would change)\n", len(p.Plugins))
	return nil
}

// unloadable reports that a host which loads a policy could not.
func (o *operator) unloadable(ctx context.Context, err error) bool {
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		return false
	}
	res, err := o.read.GetSnapshot(ctx, connect.NewRequest(&adminv1.GetSnapshotRequest{MaxEntries: 1}))
	return err == nil && res.Msg.GetSnapshot().GetHost().GetReloadsPolicy()
}

func (t *tool) policyChanges(m *adminv1.CheckPolicyResponse, alone bool) error {
	words := map[adminv1.PolicyChange_Kind]string{
		adminv1.PolicyChange_KIND_IDENTITY_ENDS:        "ends",
		adminv1.PolicyChange_KIND_RIGHT_LOST:           "may no longer",
		adminv1.PolicyChange_KIND_RIGHT_GAINED:         "may now",
		adminv1.PolicyChange_KIND_REGISTRATION_ENDS:    "loses its registration",
		adminv1.PolicyChange_KIND_REGISTRATION_RETURNS: "provides again",
		adminv1.PolicyChange_KIND_GRANT_ENDS:           "loses its grant",
		adminv1.PolicyChange_KIND_ENDPOINT_ENDS:        "is reached nowhere; was at",
		adminv1.PolicyChange_KIND_ENDPOINT_SET:         "is reached at",
	}
	b := t.table("PLUGIN", "RUNTIME ID", "CHANGE", "RIGHT", "OF", "WHY")
	slices.SortStableFunc(m.GetChanges(), func(a, b *adminv1.PolicyChange) int {
		return cmp.Or(cmp.Compare(a.GetSelfId(), b.GetSelfId()), cmp.Compare(a.GetRuntimeId(), b.GetRuntimeId()))
	})
	for _, c := range m.GetChanges() {
		b.row(c.GetSelfId(), c.GetRuntimeId(), words[c.GetKind()], c.GetRight(), c.GetSubject(), c.GetReason())
	}
	if err := b.end("nothing would change for those who are there now"); err != nil {
		return err
	}
	if m.GetOmitted() > 0 {
		fmt.Fprintf(t.out, "(%d changes more are not shown)\n", m.GetOmitted())
	}
	if alone && len(m.GetChanges()) > 0 {
		fmt.Fprintln(t.out, "(the file alone was looked at; policy check without a file looks at what the host would load)")
	}
	return nil
}

// readPolicy reads a policy.
func readPolicy(name string) (*connectplugin.Policy, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	p, err := decodePolicy(name, text)
	if err != nil {
		return nil, &foundError{err}
	}
	for plugin, rules := range p.Plugins {
		if err := checkRules(&rules); err != nil {
			return nil, &foundError{fmt.Errorf("%s: Plugins[%q].%w", name, plugin, err)}
		}
	}
	if p.Default != nil {
		if err := checkRules(p.Default); err != nil {
			return nil, &foundError{fmt.Errorf("%s: Default.%w", name, err)}
		}
	}
	return p, nil
}

// wirePolicy is a policy without its secrets, which stay here: the host is told only that there are some.
func wirePolicy(p *connectplugin.Policy) *adminv1.PolicyDocument {
	out := &adminv1.PolicyDocument{
		Plugins: map[string]*adminv1.PluginRules{}, AllowMultiple: p.AllowMultiple, Idempotent: p.Idempotent, Public: p.Public,
	}
	for plugin, rules := range p.Plugins {
		out.Plugins[plugin] = wireRules(&rules)
	}
	if p.Default != nil {
		out.Default = wireRules(p.Default)
	}
	return out
}

// decodePolicy reads the one policy that a text is.
func decodePolicy(name string, text []byte) (*connectplugin.Policy, error) {
	switch string(bytes.TrimSpace(text)) {
	case "":
		return nil, fmt.Errorf("%s: is empty; write {} for a policy that allows nothing", name)
	case "null":
		return nil, fmt.Errorf("%s: is null; write {} for a policy that allows nothing", name)
	}
	if err := bom.Check(text); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p, d := new(connectplugin.Policy), json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("%s%s%s: %w (the fields are those of connectplugin.Policy)", name, whereOf(text, d, err), badSecret(text), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: something follows the policy", name)
	}
	if err := writtenTwice(text); err != nil {
		return nil, fmt.Errorf("%s%w", name, err)
	}
	return p, nil
}

// sharedEndpoints warns of those that a policy names for several plugins.
func sharedEndpoints(p *connectplugin.Policy) (warnings []string) {
	shared := map[string][]string{}
	for plugin, rules := range p.Plugins {
		if at := strings.TrimRight(rules.Endpoint, "/"); at != "" {
			shared[at] = append(shared[at], plugin)
		}
	}
	for endpoint, names := range shared {
		if slices.Sort(names); len(names) > 1 {
			warnings = append(warnings, fmt.Sprintf("warning: %q have one Endpoint, %s, where one at most answers: write one for each",
				names, endpoint))
		}
	}
	slices.Sort(warnings)
	return warnings
}

// unprovided warns of types that a policy names and lets no plugin provide, as where one is misspelt.
func unprovided(p *connectplugin.Policy) (warnings []string) {
	provided := map[string]bool{everything: true}
	all := slices.Collect(maps.Values(p.Plugins))
	if p.Default != nil {
		all = append(all, *p.Default)
	}
	for _, rules := range all {
		if slices.Contains(rules.Provides, everything) {
			return nil
		}
		for _, name := range rules.Provides {
			provided[name] = true
		}
	}
	warn := func(field string, names []string) {
		for i, name := range names {
			if !provided[name] {
				warnings = append(warnings, fmt.Sprintf("warning: %s[%d] is %q, which no plugin may provide: write the name of a type, "+
					"unless the host's own program provides it", field, i, name))
			}
		}
	}
	warn("AllowMultiple", p.AllowMultiple)
	if p.Default != nil {
		warn("Default.Requires", p.Default.Requires)
	}
	for _, plugin := range slices.Sorted(maps.Keys(p.Plugins)) {
		warn(fmt.Sprintf("Plugins[%q].Requires", plugin), p.Plugins[plugin].Requires)
	}
	return warnings
}

// everything in the place of a type stands for all.
const everything = "*"

// badSecret names the first plugin in a policy whose secret is not in base64, empty for none.
func badSecret(text []byte) string {
	type rules struct {
		Secret json.RawMessage `json:"secret"`
	}
	var p struct {
		Plugins map[string]rules `json:"plugins"`
		Default rules            `json:"default"`
	}
	if json.Unmarshal(text, &p) != nil {
		return ""
	}
	bad := func(r rules) bool {
		return len(r.Secret) > 0 && new(connectplugin.Secret).UnmarshalJSON(r.Secret) != nil
	}
	for _, plugin := range slices.Sorted(maps.Keys(p.Plugins)) {
		if bad(p.Plugins[plugin]) {
			return fmt.Sprintf(": Plugins[%q].Secret", plugin)
		}
	}
	if bad(p.Default) {
		return ": Default.Secret"
	}
	return ""
}

// minSecret is how many bytes a secret has at least. The host is not told how many there are.
const minSecret = 16

// checkRules looks at what the host is not told as it is written.
func checkRules(p *connectplugin.PluginPolicy) error {
	switch s := p.Secret; {
	case s != nil && len(s) < minSecret:
		return fmt.Errorf("%s has %d bytes; write at least %d random ones, in base64", "Secret", len(s), minSecret)
	case p.MaxInstances < 0:
		return fmt.Errorf("%s is negative", "MaxInstances")
	case p.MaxInstances > math.MaxInt32:
		return fmt.Errorf("%s is too large", "MaxInstances")
	}
	return nil
}

// whereOf says in which line of a policy, and in which of its plugins, an error of its decoder is.
func whereOf(text []byte, d *json.Decoder, err error) string {
	at := d.InputOffset()
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = syntax.Offset
	}
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		at = kind.Offset
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		at = int64(len(text))
	}
	return lineAt(text, at)
}

func lineAt(text []byte, at int64) string {
	before := text[:min(max(at-1, 0), int64(len(text)))]
	return fmt.Sprintf(":%d", bytes.Count(before, []byte("\n"))+1)
}

// writtenTwice refuses a field or a plugin that a policy has twice: the decoder takes the last one in silence. The names of
// fields are the same whatever their case, as they are to the decoder.
func writtenTwice(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	return onlyOnce(text, d, "")
}

// pluginsField is the field whose entries are named by the operator.
const pluginsField = "plugins"

// onlyOnce looks at the next value, which is that of a field.
func onlyOnce(text []byte, d *json.Decoder, field string) error {
	token, err := d.Token()
	opened, ok := token.(json.Delim)
	if err != nil || !ok {
		return err
	}
	seen := map[string]bool{}
	for d.More() {
		name := field
		if opened == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, _ = key.(string)
			if field != pluginsField {
				name = strings.ToLower(name)
			}
			if seen[name] {
				return fmt.Errorf("%s: %q is there twice, and the second one would hold: write it once", lineAt(text, d.InputOffset()), key)
			}
			seen[name] = true
			if field == pluginsField {
				name = ""
			}
		}
		if err := onlyOnce(text, d, name); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

func wireRules(p *connectplugin.PluginPolicy) *adminv1.PluginRules {
	return &adminv1.PluginRules{
		Provides: p.Provides, Requires: p.Requires, Capabilities: p.Capabilities, HostPlugins: p.HostPlugins, Procedures: p.Procedures,
		Endpoint: p.Endpoint, AllowOwnAddress: p.AllowOwnAddress, HasSecret: len(p.Secret) > 0, Certificates: p.Certificates,
		PinnedKeys: p.PinnedKeys, AllowUnproven: p.AllowUnproven, MaxInstances: uint32(max(p.MaxInstances, 0)), //nolint:gosec // it is small
		SelfIds: p.SelfIDs,
	}
}
