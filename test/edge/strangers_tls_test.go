package edge_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// The same over TLS, from addresses of loopback: of every refusal something is told, of each by itself no more than all strangers may
// have in the time that it took.
func TestAllStrangersShareABudgetOfTheAuditOverTLS(t *testing.T) {
	t.Parallel()
	const addresses, each, burst, perSecond = 100, 20, 1000, 200
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	begun := time.Now()
	for i := range addresses {
		client := strangerAt(t, host, fmt.Sprintf("127.1.0.%d", i+1))
		for range each {
			_, err := client.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("nobody")))
			if connect.CodeOf(err) != connect.CodePermissionDenied && connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Fatalf("a stranger: %v, want a refusal", err)
			}
		}
	}
	most := burst + perSecond*int(time.Since(begun)/time.Second+2)
	told := func() (single, rest int) {
		for _, e := range host.Audit.Events() {
			switch {
			case strings.HasPrefix(e.Peer, "127.1."):
				single++
			case e.Kind == connectplugin.AuditLimited && strings.Contains(e.Reason, "auth_failed"):
				rest += e.Count
			}
		}
		return single, rest
	}
	hosttest.Eventually(t, "every refusal is told", func() bool {
		single, rest := told()
		return single+rest == addresses*each
	})
	if single, rest := told(); single > most {
		t.Errorf("%d events of strangers and %d more that are counted, want %d at most by themselves", single, rest, most)
	}
}

// strangerAt is a client without a certificate that comes from an address.
func strangerAt(t *testing.T, host *hosttest.Host, from string) connectpluginv1connect.HandshakeServiceClient {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, Config: host.Authority.ClientTLS()}
	d.Config.NextProtos = []string{"h2"}
	transport := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: d.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return connectpluginv1connect.NewHandshakeServiceClient(&http.Client{Transport: transport}, host.URL)
}
