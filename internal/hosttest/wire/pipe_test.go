package wire

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// The bubble's end finds what a dialler left behind.
func TestHosttest_AFailedDialLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func(*pipeListener, context.CancelFunc){
		"the host goes amid the TLS handshake": func(l *pipeListener, _ context.CancelFunc) {
			conn := <-l.conns
			_, _ = conn.Read(make([]byte, 1<<16))
			_ = conn.Close()
		},
		"the host has gone": func(l *pipeListener, _ context.CancelFunc) { _ = l.Close() },
		"nobody waits":      func(_ *pipeListener, cancel context.CancelFunc) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := &BubbleHost{listener: newPipeListener(), authority: hosttest.NewAuthority(t)}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go fails(h.listener, cancel)
				if conn, err := h.dialTLS(ctx); err == nil {
					t.Fatal("dialled", conn)
				}
			})
		})
	}
}
