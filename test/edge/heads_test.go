package edge_test

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Strangers that stay in the midst of long heads have as many seats as there are for their address, and lose them to others: a
// stranger of the same address whose head is as long, and comes, is answered.
func TestAudit_ATK14_ALongHeadGetsPastThoseThatStayUnfinished(t *testing.T) {
	t.Parallel()
	const strangers, frame, size = 60, 16 << 10, 24 << 10
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Limits.ReadHeaderTimeout = 2 * hosttest.Wait })
	r := &rig{swellHost: &swellHost{Host: host}}
	head := headBlock(host.Addr(), "/healthz", [2]string{"x-long", strings.Repeat("~", size)})
	begin := func(f *http2.Framer) {
		t.Helper()
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head[:frame], EndStream: true}); err != nil {
			t.Fatal(err)
		}
	}
	for range strangers {
		begin(frames(t, r))
	}
	honest := frames(t, r)
	begin(honest)
	if err := honest.WriteContinuation(1, true, head[frame:]); err != nil {
		t.Fatal(err)
	}
	answer, _ := await(t, honest, http2.FrameHeaders).(*http2.HeadersFrame)
	status := ""
	_, _ = hpack.NewDecoder(1<<12, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			status = f.Value
		}
	}).Write(answer.HeaderBlockFragment())
	if status != "405" {
		t.Errorf("the status is %q", status)
	}
}
