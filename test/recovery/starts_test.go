package recovery_test

import (
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// A program that ends without a word before it called anything leaves its place to its next start
// at once, in no time at all: its connection has ended, and it has no other. While it has one it
// keeps its place.
func TestAudit_USE25_ManyStartsInNoTime(t *testing.T) {
	t.Parallel()
	const most, starts = 3, 12
	wire.InBubble(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policy()
		instances(most, connectplugin.HealthProbeConfig{Disabled: true})(c)
	}, func(t *testing.T, h *wire.BubbleHost) {
		start := func() (*wire.Conn, connect.Code) {
			conn := h.Dial(t)
			code := conn.Handshake(t, conn.Prove(t, wire.FreshRequest("api"), true))
			return conn, code
		}
		for n := range starts {
			conn, code := start()
			if code != 0 {
				t.Fatalf("start %d: %v", n, code)
			}
			conn.Close()
			synctest.Wait()
		}
		var alive []*wire.Conn
		for range most {
			conn, code := start()
			if code != 0 {
				t.Fatalf("one that stays: %v", code)
			}
			alive = append(alive, conn)
		}
		for range 3 {
			if _, code := start(); code != connect.CodeResourceExhausted {
				t.Errorf("one more than may be, while all have their connections: %v", code)
			}
		}
		alive[0].Close()
		synctest.Wait()
		if _, code := start(); code != 0 {
			t.Errorf("after the end of one: %v", code)
		}
	})
}
