package ctl

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
)

// looking is a command that takes a snapshot and shows a part of it.
func (t *tool) looking(use, short string, show func(*adminv1.Snapshot) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: exactly(), RunE: func(c *cobra.Command, _ []string) error {
		return t.with(c.Context(), func(ctx context.Context, o *operator) error {
			res, err := o.read.GetSnapshot(ctx, connect.NewRequest(&adminv1.GetSnapshotRequest{}))
			if err != nil {
				return err
			}
			if t.json {
				return t.message(res.Msg.GetSnapshot(), false)
			}
			if err := show(res.Msg.GetSnapshot()); err != nil {
				return err
			}
			if n := res.Msg.GetSnapshot().GetOmitted(); n > 0 {
				fmt.Fprintf(t.out, "(%d entries more are not shown)\n", n)
			}
			return nil
		})
	}}
}

func (t *tool) plugins() *cobra.Command {
	return t.looking("plugins", "list plugins: who, since when, from where, how proven, how they are", t.showPlugins)
}

// showPlugins writes the plugins of a snapshot.
func (t *tool) showPlugins(s *adminv1.Snapshot) error {
	titles := []string{
		"PLUGIN", "RUNTIME ID", "VERSION", "AGE", "FROM", "PROOF", "HEALTH", "SERVICES", "IN FLIGHT", "CERT ENDS", "LAST ERROR",
	}
	if t.wide {
		titles = append(titles, "CERTIFICATE", "MAY PROVIDE", "MAY CALL", "MAY USE", "MAY ASK THE HOST'S", "ENDPOINT", "REASON")
	}
	b := t.table(titles...)
	for _, p := range s.GetPlugins() {
		reason := p.GetHealthReason()
		if t.wide { // has a column of its own
			reason = ""
		}
		cells := []string{
			p.GetSelfId(), p.GetRuntimeId(), p.GetSelfVersion(), age(p.GetEnrolledAt()), p.GetPeer(),
			word(p.GetProof().String(), "PROOF_"), healthOf(p), strings.Join(p.GetServices(), ","), strconv.FormatUint(uint64(p.GetInFlight()), 10),
			until(p.GetCertificateExpiresAt()), cmp.Or(p.GetLaunch().GetError(), p.GetLastError(), reason),
		}
		if t.wide {
			for _, names := range [][]string{
				{p.GetCertificate()}, p.GetMayProvide(), p.GetMayRequire(), p.GetMayUse(), p.GetMayCall(), {p.GetEndpoint()}, {p.GetHealthReason()},
			} {
				cells = append(cells, strings.Join(names, ","))
			}
		}
		b.row(cells...)
	}
	return b.end("no plugins")
}

// healthOf says how an instance is, or where a launched plugin stands that is not running.
func healthOf(p *adminv1.PluginInfo) string {
	health := word(p.GetHealth().String(), "HEALTH_")
	switch {
	case p.GetRuntimeId() == "" && p.GetLaunch() != nil:
		return launchState(p.GetLaunch())
	case p.GetDrained():
		return strings.TrimPrefix(health+", drained", ", ")
	}
	return health
}

// launchState says where a launched plugin stands that is not running.
func launchState(l *adminv1.LaunchInfo) string {
	if l.GetNextStart() == nil {
		return l.GetState()
	}
	return l.GetState() + ", starts in " + until(l.GetNextStart())
}

func (t *tool) services() *cobra.Command {
	return t.looking("services", "list service types and who provides them", func(s *adminv1.Snapshot) error {
		b := t.table("TYPE", "PROVIDER", "RUNTIME ID", "VERSION", "HEALTH", "WATCHES")
		watches := map[string]int{}
		for _, w := range s.GetWatches() {
			watches[w.GetType()]++
		}
		for _, v := range s.GetServices() {
			for _, p := range v.GetProviders() {
				b.row(v.GetType(), p.GetSelfId(), p.GetRuntimeId(), p.GetVersion(), word(p.GetHealth().String(), "HEALTH_"),
					strconv.Itoa(watches[v.GetType()]))
			}
		}
		return b.end("no services")
	})
}

func (t *tool) limits() *cobra.Command {
	return t.looking("limits", "list the bounds of the host and how full they are", func(s *adminv1.Snapshot) error {
		b := t.table("LIMIT", "USED", "OF", "FULL", "WHOSE")
		for _, l := range s.GetLimits() {
			b.row(l.GetName(), strconv.FormatUint(l.GetUsed(), 10), strconv.FormatUint(l.GetMax(), 10), percent(l.GetUsed(), l.GetMax()), l.GetOf())
		}
		return b.end("no limits")
	})
}

func percent(part, of uint64) string {
	if of == 0 {
		return ""
	}
	const hundred = 100
	return fmt.Sprintf("%.0f%%", hundred*float64(part)/float64(of))
}

func (t *tool) calls() *cobra.Command {
	return t.looking("calls", "list who calls whom: how often, how it ends, how long it takes", func(s *adminv1.Snapshot) error {
		b := t.table("CALLER", "PROVIDER", "TYPE", "CALLS", "FAILED", "CALLER'S FAULT", "GIVEN UP", "MEDIAN ≤", "99% ≤", "LAST ERROR")
		for _, e := range s.GetEdges() {
			last := e.GetLastCode()
			if last != "" {
				last += " " + age(e.GetLastErrorAt()) + " ago"
			}
			b.row(e.GetCaller(), e.GetProvider(), e.GetType(), strconv.FormatUint(e.GetCalls(), 10), strconv.FormatUint(e.GetProviderFaults(), 10),
				strconv.FormatUint(e.GetCallerFaults(), 10), strconv.FormatUint(e.GetCanceled(), 10),
				e.GetMedian().AsDuration().String(), e.GetSlow().AsDuration().String(), last)
		}
		return b.end("no calls yet")
	})
}

// word is the name of an enum's value for people.
func word(name, prefix string) string {
	s := strings.ToLower(strings.TrimPrefix(name, prefix))
	return strings.ReplaceAll(strings.ReplaceAll(s, "_and_", "+"), "unspecified", "")
}

func (t *tool) watch() *cobra.Command {
	every := defaultEvery
	c := &cobra.Command{Use: "watch", Short: "follow plugins coming, going and changing", Args: exactly()}
	c.Flags().DurationVar(&every, "every", every, "how often at most")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return t.with(c.Context(), func(ctx context.Context, o *operator) error {
			seen := state{}
			return t.follow(ctx, o, &adminv1.FollowRequest{Interval: durationpb.New(every)}, func(m *adminv1.FollowResponse) error {
				if m.GetSnapshot() == nil {
					return nil
				}
				if t.json {
					return t.message(m.GetSnapshot(), true)
				}
				next := stateOf(m.GetSnapshot())
				at := m.GetSnapshot().GetTakenAt().AsTime().In(here).Format(time.TimeOnly)
				for _, change := range next.since(seen) {
					fmt.Fprintln(t.out, t.paint(change.colour, at+" "+line(change.text)))
				}
				seen = next
				return nil
			})
		})
	}
	return c
}
