package page_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/masegraye/connect-plugin-go/console/page"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// sayingHost is a host that says what a test has it say.
type sayingHost struct {
	adminv1connect.UnimplementedAdminReadServiceHandler

	snapshots chan *adminv1.Snapshot
}

// Follow sends each snapshot.
func (h sayingHost) Follow(ctx context.Context, _ *connect.Request[adminv1.FollowRequest], stream *connect.ServerStream[adminv1.FollowResponse]) error {
	for {
		select {
		case s := <-h.snapshots:
			if err := stream.Send(&adminv1.FollowResponse{Snapshot: s}); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// saying opens the page of such a host.
func saying(t *testing.T) (*chrome, chan<- *adminv1.Snapshot) {
	t.Helper()
	program := chromium(t)
	h := sayingHost{snapshots: make(chan *adminv1.Snapshot, 1)}
	mux := http.NewServeMux()
	mux.Handle(adminv1connect.NewAdminReadServiceHandler(h))
	host := httptest.NewServer(mux)
	t.Cleanup(host.Close)
	s := servePage(t, page.Config{Read: adminv1connect.NewAdminReadServiceClient(host.Client(), host.URL)}, hosttest.Listen(t))
	return openBrowser(t, program, s.Link()), h.snapshots
}

// narrow demands that the page on a telephone needs no scrolling to the side, and that the picture's texts
// are in it and large enough to read.
func (b *chrome) narrow(t *testing.T, name string) {
	t.Helper()
	const texts = `[...document.querySelectorAll("#graph text")]`
	b.width(t, 400)
	hosttest.Eventually(t, "the picture is drawn for a telephone", func() bool {
		return b.evaluate(t, `document.getElementById("graph").getAttribute("viewBox")`) == "0 0 400 430"
	})
	b.screenshots(t, name)
	if got := b.evaluate(t, `String(document.documentElement.scrollWidth <= innerWidth)`); got != "true" {
		t.Error("the page is wider than the window")
	}
	if got := b.evaluate(t, `(() => { const g = document.getElementById("graph").getBoundingClientRect();
		return `+texts+`.filter((e) => { const r = e.getBoundingClientRect();
			return r.height < 10.5 || r.left < g.left || r.right > g.right || r.top < g.top || r.bottom > g.bottom; }).map((e) => e.textContent).join() })()`); got != "" {
		t.Errorf("out of the picture, or too small: %s", got)
	}
}

// states are plugins in every state, and what the page says of them and in which colour.
func states() (plugins []*adminv1.PluginInfo, want map[string]string) {
	want = map[string]string{}
	add := func(name, says string, p *adminv1.PluginInfo) {
		p.SelfId = name
		if p.GetLaunch() == nil {
			p.RuntimeId = name + "-1"
		}
		plugins, want[name] = append(plugins, p), says
	}
	launched := func(state, why string) *adminv1.PluginInfo {
		return &adminv1.PluginInfo{Launch: &adminv1.LaunchInfo{Name: "x" + state, State: state, Error: why}}
	}
	services, none := []string{"acme.Store"}, []string(nil)
	add("well", "healthy/good", &adminv1.PluginInfo{Health: adminv1.Health_HEALTH_HEALTHY, Services: services})
	add("ill", "unhealthy: it says so/bad", &adminv1.PluginInfo{Health: adminv1.Health_HEALTH_UNHEALTHY, HealthReason: "it says so", Services: services})
	add("half", "degraded/warn", &adminv1.PluginInfo{Health: adminv1.Health_HEALTH_DEGRADED, Services: services})
	add("new", "unknown/warn", &adminv1.PluginInfo{Services: services})
	add("caller", "/", &adminv1.PluginInfo{Services: none})
	add("out", "healthy, drained: it provides nothing/warn", &adminv1.PluginInfo{
		Health: adminv1.Health_HEALTH_HEALTHY, Drained: true, HealthReason: "drained: it provides nothing",
	})
	add("outandill", "unhealthy, drained/bad", &adminv1.PluginInfo{Health: adminv1.Health_HEALTH_UNHEALTHY, Drained: true})
	add("second", "healthy: not provided, since another plugin does: acme.Store/good", &adminv1.PluginInfo{
		Health: adminv1.Health_HEALTH_HEALTHY, HealthReason: "not provided, since another plugin does: acme.Store",
	})
	add("coming", "starting/warn", launched("starting", ""))
	add("leaving", "stopping/warn", launched("stopping", ""))
	add("ended", "stopped/warn", launched("stopped", ""))
	add("failed", "backoff: exit status 1/bad", launched("backoff", "exit status 1"))
	add("looping", "broken: signal: killed/bad", launched("broken", "signal: killed"))
	return plugins, want
}

// The page says how each plugin is, whatever state that is, and of hundreds of plugins and thousands of
// edges as well.
func TestStates(t *testing.T) {
	t.Parallel()
	b, snapshots := saying(t)
	plugins, want := states()
	said := &adminv1.Snapshot{Plugins: plugins, TakenAt: timestamppb.Now()}
	for _, p := range plugins {
		said.Edges = append(said.Edges, &adminv1.EdgeInfo{
			Caller: "a-caller-of-a-rather-long-name", Provider: p.GetSelfId(), Type: "acme.storage.v1.Objects", Median: durationpb.New(1), Slow: durationpb.New(1),
		})
	}
	snapshots <- said
	rows := func(table string) string {
		return b.evaluate(t, `String(document.querySelectorAll("#`+table+` tbody tr").length)`)
	}
	hosttest.Eventually(t, "the page shows the plugins", func() bool { return rows("plugins") == fmt.Sprint(len(plugins)) })
	b.screenshots(t, "states")
	for name, says := range want {
		got := b.evaluate(t, `[...document.querySelectorAll("#plugins tbody tr")].filter((tr) => tr.cells[0].textContent === "`+name+
			`").map((tr) => tr.cells[2].textContent + "/" + tr.cells[2].className.replace("long", "").trim()).join()`)
		if got != says {
			t.Errorf("%s: the page says %q, want %q", name, got, says)
		}
	}
	b.evaluate(t, `clearTimeout(state.timer); ""`) // nothing but the window's width has the picture drawn again
	b.narrow(t, "states-400")
	const many, calls = 300, 2000
	crowd := &adminv1.Snapshot{TakenAt: timestamppb.Now()}
	for i := range many {
		crowd.Plugins = append(crowd.Plugins, &adminv1.PluginInfo{RuntimeId: fmt.Sprintf("p%d-1", i), SelfId: fmt.Sprintf("p%d", i), Services: []string{"acme.Store"}})
	}
	for i := range calls {
		crowd.Edges = append(crowd.Edges, &adminv1.EdgeInfo{
			Caller: fmt.Sprintf("p%d", i%many), Provider: fmt.Sprintf("p%d", (i*7+i/many+1)%many), Type: fmt.Sprintf("t%d", i), Calls: 10, Median: durationpb.New(1), Slow: durationpb.New(1),
		})
	}
	snapshots <- crowd
	hosttest.Eventually(t, "the page shows the crowd", func() bool { return rows("plugins") == fmt.Sprint(many) && rows("edges") == fmt.Sprint(calls) })
	b.width(t, 1280)
	if got := b.evaluate(t, `document.getElementById("graph").textContent`); !strings.Contains(got, fmt.Sprintf("%d more in the table", many-24)) {
		t.Errorf("the picture says %.300s", got)
	}
	if got := b.evaluate(t, `String(document.querySelectorAll("#graph circle").length)`); got != "24" {
		t.Errorf("%s plugins are in the picture", got)
	}
	snapshots <- &adminv1.Snapshot{Plugins: plugins[:1], TakenAt: timestamppb.Now()}
	hosttest.Eventually(t, "the page shows what came next", func() bool { return rows("plugins") == "1" && rows("edges") == "0" })
}

// overlaps lists what lies over something else in the picture: figures of edges that are shown, and names.
const overlaps = `(() => {
	const shown = [...document.querySelectorAll("#graph .figures"), ...document.querySelectorAll("#graph > text, #graph > circle")]
		.map((e) => [e.textContent || e.tagName, e.getBoundingClientRect()]).filter(([, r]) => r.width > 0);
	const over = [];
	shown.forEach(([a, r], i) => shown.slice(0, i).forEach(([b, q]) => {
		if (r.left < q.right - 0.5 && q.left < r.right - 0.5 && r.top < q.bottom - 0.5 && q.top < r.bottom - 0.5) over.push(a + " over " + b);
	}));
	return over.slice(0, 5).join("; ");
})()`

// The figures of edges lie over no others and over no name, at the width of a usual window. Those for which there is no
// room are shown as long as the mouse is on their edge, and a few have room.
func TestFiguresLieApart(t *testing.T) {
	t.Parallel()
	b, snapshots := saying(t)
	b.width(t, 1280)
	figures := func(which string) string {
		return b.evaluate(t, `String([...document.querySelectorAll("#graph `+which+`")].filter((e) => e.getBoundingClientRect().width > 0).length)`)
	}
	for _, n := range []int{3, 9} {
		edges := n * (n - 1)
		said := &adminv1.Snapshot{TakenAt: timestamppb.Now()}
		for i := range n * n {
			from, to := i/n, i%n
			if from == to {
				continue
			}
			for _, of := range []string{"acme.storage.v1.Objects", "acme.mail.v1.Letters"}[:1+(from+to)%2] {
				said.Edges = append(said.Edges, &adminv1.EdgeInfo{
					Caller: fmt.Sprintf("plugin-%d", from), Provider: fmt.Sprintf("plugin-%d", to), Type: of,
					Calls: 1234, Median: durationpb.New(1234567), Slow: durationpb.New(12345678),
				})
			}
		}
		snapshots <- said
		hosttest.Eventually(t, "the page shows the edges", func() bool {
			return b.evaluate(t, `String(document.querySelectorAll("#graph .figures").length)`) == fmt.Sprint(edges)
		})
		b.evaluate(t, `clearTimeout(state.timer); ""`) // the picture stays as it is
		b.screenshots(t, fmt.Sprintf("figures-%d", n))
		if got := b.evaluate(t, overlaps); got != "" {
			t.Errorf("%d edges: %s", edges, got)
		}
		shown := figures(".figures")
		if few := n == 3; few != (shown == fmt.Sprint(edges)) || shown == "0" {
			t.Errorf("%s of %d edges have their figures in the picture", shown, edges)
		}
		if n == 3 {
			continue
		}
		at := strings.Split(b.evaluate(t, `(() => { const path = document.querySelector("#graph .crowded .hit"), p = path.getPointAtLength(path.getTotalLength() / 3);
			const q = new DOMPoint(p.x, p.y).matrixTransform(path.getScreenCTM()); path.ownerSVGElement.append(path.parentElement); return q.x + " " + q.y; })()`), " ")
		if len(at) != 2 {
			t.Fatalf("the figures of no edge are hidden: %v", at)
		}
		b.point(t, at[0], at[1])
		hosttest.Eventually(t, "the figures under the mouse are shown", func() bool { return figures(".crowded .figures") == "1" })
		b.point(t, "1", "1")
		hosttest.Eventually(t, "they are not shown any more", func() bool { return figures(".crowded .figures") == "0" })
	}
}

// point has the mouse somewhere in the window.
func (b *chrome) point(t *testing.T, x, y string) {
	t.Helper()
	b.call(t, "Input.dispatchMouseEvent", map[string]any{"type": "mouseMoved", "x": json.Number(x), "y": json.Number(y)}, &struct{}{})
}
