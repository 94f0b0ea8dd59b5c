package page_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/masegraye/connect-plugin-go/console/page"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// toldHost is a host that says what the test has it say.
type toldHost struct {
	adminv1connect.UnimplementedAdminReadServiceHandler

	say chan *adminv1.FollowResponse
}

// Follow says that.
func (h toldHost) Follow(ctx context.Context, _ *connect.Request[adminv1.FollowRequest], stream *connect.ServerStream[adminv1.FollowResponse]) error {
	for {
		select {
		case m := <-h.say:
			if err := stream.Send(m); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// An edge has the rate of the last second, and none when its calls have stopped: a host sends nothing
// while nothing changes. One that begins anew counts from the beginning.
func TestRatesEnd(t *testing.T) {
	t.Parallel()
	program := chromium(t)
	told := toldHost{say: make(chan *adminv1.FollowResponse)}
	mux := http.NewServeMux()
	mux.Handle(adminv1connect.NewAdminReadServiceHandler(told))
	host := httptest.NewServer(mux)
	t.Cleanup(host.Close)
	s := servePage(t, page.Config{Read: adminv1connect.NewAdminReadServiceClient(host.Client(), host.URL)}, hosttest.Listen(t))
	b := openBrowser(t, program, s.Link())
	begun := time.Now()
	tell := func(second int, calls uint64) {
		told.say <- &adminv1.FollowResponse{Snapshot: &adminv1.Snapshot{
			TakenAt: timestamppb.New(begun.Add(time.Duration(second) * time.Second)),
			Edges:   []*adminv1.EdgeInfo{{Caller: "a", Provider: "b", Type: "t", Calls: calls}},
		}}
	}
	tell(0, 7)
	const rate = `[...document.querySelectorAll("#edges td")].slice(2, 4).map((c) => c.textContent).join(" of ")`
	hosttest.Eventually(t, "the page shows the calls", func() bool { return b.evaluate(t, rate) == "0.0 of 7" })
	b.evaluate(t, `(() => { const seen = window.seen = []; new MutationObserver(() => { if (`+rate+` !== seen.at(-1)) seen.push(`+rate+`); })
		.observe(document.getElementById("edges"), { childList: true, characterData: true, subtree: true }); return ""; })()`)
	seen := ""
	for i, step := range []struct {
		calls uint64
		shown string
	}{{27, "20.0 of 27, 0.0 of 27"}, {5, ", 5.0 of 5, 0.0 of 5"}} {
		tell(i+1, step.calls)
		seen += step.shown
		hosttest.Eventually(t, "the page has shown "+seen, func() bool { return b.evaluate(t, `window.seen.join(", ")`) == seen })
	}
}
