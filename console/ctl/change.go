package ctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
)

// changing is a command that changes something by name and says what came of it.
func (t *tool) changing(use, short string, names []string, change func(context.Context, *operator, []string) (proto.Message, string, error)) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: exactly(names...), RunE: func(c *cobra.Command, args []string) error {
		return t.with(c.Context(), func(ctx context.Context, o *operator) error {
			m, text, err := change(ctx, o, args)
			switch {
			case err != nil:
				return err
			case t.json:
				return t.message(m, false)
			}
			_, err = fmt.Fprintln(t.out, line(text))
			return err
		})
	}}
}

func (t *tool) revoke() *cobra.Command {
	var instance bool
	c := t.changing("revoke SELF_ID", "end a plugin and keep it out until it is readmitted, or end one instance (--instance RUNTIME_ID)",
		[]string{"SELF_ID"}, func(ctx context.Context, o *operator, args []string) (proto.Message, string, error) {
			ask := &adminv1.RevokeRequest{Who: &adminv1.RevokeRequest_SelfId{SelfId: args[0]}}
			if instance {
				ask.Who = &adminv1.RevokeRequest_RuntimeId{RuntimeId: args[0]}
			} else if selfID, _ := o.lookUp(ctx, args[0]); selfID != "" {
				return nil, "", fmt.Errorf("%s is the runtime id of one instance: write `revoke --instance %s` to end that one, or `revoke %s` for all",
					args[0], args[0], selfID)
			}
			res, err := o.change.Revoke(ctx, connect.NewRequest(ask))
			if err != nil {
				if instance {
					err = o.oneOf(ctx, args[0], err)
				}
				return nil, "", err
			}
			text := fmt.Sprintf("%s: %d identities ended; it stays out until `connectpluginctl readmit %s`", args[0], res.Msg.GetEnded(), args[0])
			if res.Msg.GetEnded() == 0 {
				text = fmt.Sprintf("%s: no plugin of that name is there%s; the name stays out until `connectpluginctl readmit %s`",
					args[0], o.others(ctx), args[0])
			}
			if instance {
				text = args[0] + " ended"
			}
			return res.Msg, text, nil
		})
	c.Flags().BoolVar(&instance, "instance", false, "the name is a runtime id: end that instance only")
	return c
}

func (t *tool) readmit() *cobra.Command {
	return t.changing("readmit SELF_ID", "let a plugin in again that was revoked", []string{"SELF_ID"},
		func(ctx context.Context, o *operator, args []string) (proto.Message, string, error) {
			res, err := o.change.Readmit(ctx, connect.NewRequest(&adminv1.ReadmitRequest{SelfId: args[0]}))
			if err != nil {
				return nil, "", err
			}
			if !res.Msg.GetWasRevoked() {
				return res.Msg, args[0] + " was not revoked", nil
			}
			return res.Msg, args[0] + " may come again; a process that ended when it was refused has to be started again: " +
				"one that the host launched with `connectpluginctl replace " + args[0] + "`", nil
		})
}

func (t *tool) drain() *cobra.Command {
	return t.changing("drain RUNTIME_ID", "take out what an instance provides, and wait for its calls in flight", []string{"RUNTIME_ID"},
		func(ctx context.Context, o *operator, args []string) (proto.Message, string, error) {
			res, err := o.change.Drain(ctx, connect.NewRequest(&adminv1.DrainRequest{RuntimeId: args[0]}))
			if err != nil {
				return nil, "", o.oneOf(ctx, args[0], err)
			}
			return res.Msg, args[0] + " is drained", nil
		})
}

// oneOf makes an error of a runtime id that there is not more plain where it is a self id.
func (o *operator) oneOf(ctx context.Context, name string, err error) error {
	if _, instances := o.lookUp(ctx, name); len(instances) > 0 {
		return fmt.Errorf("%s is a self id: name the runtime id of one instance: %s", name, strings.Join(instances, ", "))
	}
	return err
}

// others names the self ids that are there, for who may have mistyped one.
func (o *operator) others(ctx context.Context) string {
	const most = 10
	var names []string
	for _, p := range o.plugins(ctx) {
		if name := p.GetSelfId(); name != o.selfID && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	switch n := len(names); {
	case n == 0:
		return ""
	case n > most:
		return fmt.Sprintf(", only %s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return ", only " + strings.Join(names, ", ")
}

// lookUp says whose runtime id a name is, and which instances have it for a self id. Who may not look
// learns neither.
func (o *operator) lookUp(ctx context.Context, name string) (selfID string, instances []string) {
	for _, p := range o.plugins(ctx) {
		switch {
		case p.GetRuntimeId() == "":
		case p.GetRuntimeId() == name:
			selfID = p.GetSelfId()
		case p.GetSelfId() == name:
			instances = append(instances, p.GetRuntimeId())
		}
	}
	return selfID, instances
}

// plugins returns those of the host, none to who may not look.
func (o *operator) plugins(ctx context.Context) []*adminv1.PluginInfo {
	res, err := o.read.GetSnapshot(ctx, connect.NewRequest(&adminv1.GetSnapshotRequest{MaxEntries: mostEntries}))
	if err != nil {
		return nil
	}
	return res.Msg.GetSnapshot().GetPlugins()
}

// mostEntries is as much as a host tells at once.
const mostEntries = 10_000

func (t *tool) replace() *cobra.Command {
	return t.changing("replace NAME", "start a new instance of a plugin that the host launched, then stop the old one", []string{"NAME"},
		func(ctx context.Context, o *operator, args []string) (proto.Message, string, error) {
			res, err := o.change.Replace(ctx, connect.NewRequest(&adminv1.ReplaceRequest{Name: args[0]}))
			if err != nil {
				return nil, "", err
			}
			return res.Msg, args[0] + " is replaced", nil
		})
}
