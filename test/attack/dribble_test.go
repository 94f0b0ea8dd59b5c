package attack_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Strangers at the host's own address take all places of it and are never silent: the host gets into
// the plugin all the same.
func TestAudit_ATK11_DribblersKeepNoHostOutOfAPlugin(t *testing.T) {
	t.Parallel()
	const places, attempts = 4, 5
	c := startCompany(t, hosttest.URI(hostID), nil, func(_ *company, p *connectplugin.PluginServerConfig) {
		p.Limits = connectplugin.PluginLimits{MaxConnectionsPerPeer: places}
	})
	for range places {
		go dribble(t.Context(), strings.TrimPrefix(c.addr, "https://"))
	}
	time.Sleep(time.Second) // for which they are there
	in := 0
	hosttest.Eventually(t, "the host gets in", func() bool {
		again := hosttest.HTTPClient(t, c.ca.TLS(c.cert))
		defer again.CloseIdleConnections()
		_, err := connect.NewClient[text, text](again, c.addr+sayProc).CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
		if err == nil {
			in++
		}
		return in == attempts
	})
}

// dribble begins TLS handshakes that never end, and are never silent, one after the other.
func dribble(ctx context.Context, addr string) {
	for ctx.Err() == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return
		}
		_, err = conn.Write([]byte("\x16\x03\x01\x20\x00\x01\x00\x1f\xfc")) // a ClientHello of 8 KiB begins
		for err == nil && ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond)
			_, err = conn.Write([]byte{3})
		}
		_ = conn.Close()
	}
}
