// Package ctl is the command connectpluginctl: what operators type to look at a host and to change it.
package ctl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Streams are where the command writes.
type Streams struct {
	// Out gets what was asked for, Err what went wrong. Out is coloured where it is a terminal
	// and NO_COLOR is not set.
	Out, Err io.Writer
}

// Run runs the command with its arguments, without the name of the program, and returns the exit code:
// 0, 1 where something failed, 2 where the command line itself was wrong, and 3 where an audit log or a policy
// does not hold.
func Run(ctx context.Context, args []string, streams Streams) int {
	running, stop := context.WithCancel(ctx)
	defer stop()
	out := &output{to: streams.Out, failed: stop}
	t := &tool{out: out, err: streams.Err, colour: colours(streams.Out)}
	root := t.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(streams.Err)
	refuseUnknown(root)
	err := root.ExecuteContext(running)
	var wrong *usageError
	var found *foundError
	switch {
	case errors.Is(out.err, syscall.EPIPE):
		return 0 // who read has enough
	case out.err != nil:
		fmt.Fprintln(streams.Err, "connectpluginctl: "+clean("what was asked for cannot be written: "+out.err.Error()))
		return 1
	case err == nil, ctx.Err() != nil && errors.Is(err, context.Canceled), connect.CodeOf(err) == connect.CodeCanceled && ctx.Err() != nil:
		return 0
	case errors.As(err, &found):
		fmt.Fprintln(streams.Err, "connectpluginctl: "+clean(found.Error()))
		return exitFound
	case errors.As(err, &wrong), !t.began:
		fmt.Fprintf(streams.Err, "connectpluginctl: %s\n\nconnectpluginctl help says what there is.\n", clean(err.Error()))
		return 2
	}
	fmt.Fprintln(streams.Err, "connectpluginctl: "+clean(explain(err)))
	return 1
}

// output is where a command writes. Where it cannot, the command ends, and gives its identity back.
type output struct {
	to     io.Writer
	failed func()
	err    error // the first one; only the goroutine of the command writes
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.to.Write(p)
	if err != nil {
		o.err = err
		o.failed()
	}
	return n, err
}

// exitCodes are what Run returns, for who asks for help.
const exitCodes = `Exit codes:
  0  done
  1  it failed: the host refuses, is away or has nothing of that name, or a file or directory is not there or does not fit
  2  the command line was wrong: a command, flag or argument that is unknown, missing, or goes with no other
  3  what was checked, an audit log or a policy, does not hold`

// exitFound says that what was checked does not hold.
const exitFound = 3

// usageError says that the command was typed wrongly.
type usageError struct{ error }

func wrongUsage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// foundError says that what was checked does not hold.
type foundError struct{ error }

// explain says what to do about an error of a host.
func explain(err error) string {
	text := err.Error()
	if enrolling, ok := errors.AsType[*enrolError](err); ok {
		return text + enrolling.advice()
	}
	switch connect.CodeOf(err) {
	case connect.CodePermissionDenied: // the word of a host of an earlier version
		text += adviceEnded(err) + adviceRights
	case connect.CodeNotFound:
		text += adviceEnded(err) +
			"\nEither there is none of that name (drain and revoke --instance take a runtime id, as plugins lists them), " +
			"or the host offers no such service, or not to this self id: ServeConfig.Admin has to be set, " +
			"and not ReadOnly for changes." + adviceRights
	case connect.CodeUnavailable:
		text += adviceAway
	default:
	}
	return text
}

// adviceRights says what lets an operator in.
const adviceRights = "\nThe policy of this self id has to name the service in HostPlugins: \"" +
	connectplugin.AdminRead + "\" to look, \"" + connectplugin.AdminChange + "\" to change."

// adviceEnded is for who was let in before.
func adviceEnded(err error) string {
	if _, ended := errors.AsType[*endedError](err); !ended {
		return ""
	}
	return "\nThe host let this self id look before: either it was revoked, and another operator has to readmit it, or the policy changed."
}

// enrolError says that the host did not let the operator in.
type enrolError struct{ error }

func (e *enrolError) Unwrap() error { return e.error }

// Advice of what a host is that does not answer as a host of the operator's.
const (
	adviceAway = "\nIs the host running, and is --host its address?"
	adviceCert = "\nThe host's certificate is not one of the authority in --credentials (ca.crt), or is for another name than --host has: " +
		"another host answers there, or these credentials are those of another one."
)

// advice says what to do about it.
func (e *enrolError) advice() string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](e.error); ok {
		return adviceCert
	}
	if failed, ok := errors.AsType[*net.OpError](e.error); ok && failed.Op == "dial" {
		return adviceAway
	}
	switch connect.CodeOf(e.error) {
	case connect.CodePermissionDenied:
		return "\nThe host refuses this self id: its policy does not name it, or it was revoked, and another operator has to readmit it."
	case connect.CodeUnauthenticated:
		return "\nIs --self-id the one in the certificate of --credentials? --secret-file holds the secret itself; " +
			"policy.json holds it in base64 (base64 -w0 FILE), without a line feed at the end."
	case connect.CodeNotFound, connect.CodeUnimplemented:
		return "\nNo host answers there: write --host https://ADDRESS:PORT, with a path only where a proxy has the host below one."
	case connect.CodeUnavailable:
		return adviceAway
	default:
		return ""
	}
}

// tool is one run of the command.
type tool struct {
	out    io.Writer
	err    io.Writer // of what is not asked for
	colour bool
	json   bool
	wide   bool
	to     connection
	began  bool // the arguments were understood
}

func (t *tool) root() *cobra.Command {
	var output string
	root := &cobra.Command{
		Use: "connectpluginctl", Short: "look at a host of plugins, and change it",
		Long:          "connectpluginctl looks at a host of plugins, and changes it.\n\n" + exitCodes,
		SilenceErrors: true, SilenceUsage: true, Version: version(),
		RunE: func(c *cobra.Command, _ []string) error {
			c.SetOut(t.err)
			_ = c.Help()
			fmt.Fprintln(t.err)
			return wrongUsage("write a command")
		},
		PersistentPreRunE: func(*cobra.Command, []string) error {
			switch output {
			case "table":
			case "wide":
				t.wide = true
			case "json":
				t.json = true
			default:
				return wrongUsage("-o %s: write table, wide or json", output)
			}
			t.began = true
			return nil
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{inWords(err)} })
	flags := root.PersistentFlags()
	flags.StringVarP(&output, "output", "o", "table", "table, wide (plugins with rights and certificates) or json")
	t.to.flags(flags)
	root.AddCommand(
		t.plugins(), t.services(), t.limits(), t.calls(), t.watch(), t.tail(),
		t.revoke(), t.readmit(), t.drain(), t.replace(), t.policy(), t.audit(), t.authority(), t.page(),
	)
	return root
}

// refuseUnknown has the commands that cobra brings refuse what they do not know. Where they write is settled with that.
func refuseUnknown(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Run, c.RunE = nil, help
		case "completion":
			c.Args, c.RunE = nil, group("", "").RunE
		}
	}
}

// help shows the help of a command.
func help(c *cobra.Command, args []string) error {
	of, left, err := c.Root().Find(args)
	if err != nil || of == nil || len(left) > 0 {
		return wrongUsage("there is no command %q to help with", strings.Join(args, " "))
	}
	of.InitDefaultHelpFlag()
	return of.Help()
}

// inWords says what a flag takes that got something else.
func inWords(err error) error {
	invalid, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	takes := map[string]string{
		"uint64": "a whole number that is not negative", "duration": "a time such as 30s or 720h",
	}[invalid.GetFlag().Value.Type()]
	if takes == "" {
		return err
	}
	return fmt.Errorf("--%s %s: write %s", invalid.GetFlag().Name, invalid.GetValue(), takes)
}

// version is that of the module, as it was built.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// group is a command that only holds others.
func group(use, short string, of ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return wrongUsage("%s has no command %q: see %s --help", c.CommandPath(), args[0], c.CommandPath())
		}
		var names []string
		for _, sub := range c.Commands() {
			names = append(names, sub.Name())
		}
		return wrongUsage("%s takes a command, %s: see %[1]s --help", c.CommandPath(), strings.Join(names, " or "))
	}}
	c.AddCommand(of...)
	return c
}

// exactly demands so many arguments, and says which.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != len(names) {
			if len(names) == 0 {
				return wrongUsage("%s takes no arguments, and got %q", c.CommandPath(), args)
			}
			return wrongUsage("%s takes %s", c.CommandPath(), strings.Join(names, " "))
		}
		return nil
	}
}

// colours reports whether a writer is a terminal that wants colours.
func colours(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
