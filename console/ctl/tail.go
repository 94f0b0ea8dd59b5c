package ctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	connectplugin "github.com/masegraye/connect-plugin-go"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
)

// tailing says what is followed.
type tailing struct{ refusals, failed, noCalls bool }

func (t *tool) tail() *cobra.Command {
	var f tailing
	c := &cobra.Command{Use: "tail", Short: "follow what the host decides, and single calls between plugins", Args: exactly()}
	c.Flags().BoolVar(&f.refusals, "refusals", false, "only what was refused, and no calls")
	c.Flags().BoolVar(&f.failed, "failed", false, "of calls only those that failed")
	c.Flags().BoolVar(&f.noCalls, "no-calls", false, "only what the host decides")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return t.with(c.Context(), func(ctx context.Context, o *operator) error {
			ask := &adminv1.FollowRequest{Calls: !f.refusals && !f.noCalls}
			return t.follow(ctx, o, ask, func(m *adminv1.FollowResponse) error { return t.tailed(m, f) })
		})
	}
	return c
}

// tailed writes what came.
func (t *tool) tailed(m *adminv1.FollowResponse, f tailing) error {
	for _, e := range m.GetEvents() {
		if f.refusals && !e.GetRefusal() {
			continue
		}
		if err := t.event(e); err != nil {
			return err
		}
	}
	for _, c := range m.GetCalls() {
		if f.failed && c.GetCode() == "" {
			continue
		}
		if err := t.call(c); err != nil {
			return err
		}
	}
	for _, lost := range []struct {
		n    uint64
		what string
	}{{m.GetMissed(), "events are not kept any more"}, {m.GetCallsMissed(), "calls more are not shown"}} {
		if lost.n > 0 && !t.json {
			fmt.Fprintf(t.out, "(%d %s)\n", lost.n, lost.what)
		}
	}
	return nil
}

// call writes one call.
func (t *tool) call(c *adminv1.CallInfo) error {
	if t.json {
		return t.message(c, true)
	}
	colour, code := "", "ok"
	if c.GetCode() != "" {
		colour, code = yellow, c.GetCode()
	}
	provider, procedure := c.GetProvider(), c.GetProcedure()
	if provider == "" {
		provider = "nobody"
	}
	if procedure == "" {
		procedure = c.GetType()
	}
	text := fmt.Sprintf("%s call %s -> %s %s %s %s %s, %d B and %d B back", c.GetEndedAt().AsTime().In(here).Format(time.TimeOnly),
		c.GetCaller(), provider, procedure, c.GetProtocol(), code, c.GetDuration().AsDuration().Round(time.Microsecond),
		c.GetRequestBytes(), c.GetResponseBytes())
	_, err := fmt.Fprintln(t.out, t.paint(colour, line(text)))
	return err
}

// here is where people read times.
var here = time.Local //nolint:gosmopolitan,gochecknoglobals // people compare them with their own clocks

// apart quotes a value that could pass for several fields. Peers choose paths and names, and a plugin says why it asks for a grant; any
// other reason is the host's own, and the last.
func apart(kind, name, value string) string {
	own := name == "because" && kind != string(connectplugin.AuditGranted)
	if !own && strings.ContainsAny(value, " \t=\"") {
		return strconv.Quote(value)
	}
	return value
}

// event writes one event.
func (t *tool) event(e *adminv1.AuditEvent) error {
	if t.json {
		return t.message(e, true)
	}
	colour := ""
	if e.GetRefusal() {
		colour = red
	}
	text := []string{e.GetTime().AsTime().In(here).Format(time.TimeOnly), e.GetKind()}
	for _, f := range []struct{ name, value string }{
		{"", e.GetSelfId()},
		{"id", e.GetRuntimeId()},
		{"from", e.GetPeer()},
		{e.GetRight(), e.GetSubject()},
		{"registration", e.GetRegistrationId()},
		{"grant", e.GetGrantId()},
		{"target", e.GetTarget()},
		{"provider", e.GetAuthProvider()},
		{"path", e.GetProcedure()},
		{"because", e.GetReason()},
	} {
		switch {
		case f.value == "":
		case f.name == "":
			text = append(text, f.value)
		default:
			text = append(text, f.name+"="+apart(e.GetKind(), f.name, f.value))
		}
	}
	if e.GetCount() > 1 {
		text = append(text, fmt.Sprintf("(%d times)", e.GetCount()))
	}
	_, err := fmt.Fprintln(t.out, t.paint(colour, line(strings.Join(text, " "))))
	return err
}
