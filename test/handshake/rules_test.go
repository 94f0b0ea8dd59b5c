package handshake_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// What fields may hold is in docs/protocol.md, for who writes a plugin without a library: the number that stands there is taken,
// and one more is refused, with the field's name.
func TestProtocol_SaysWhatFieldsMayHold(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	long := func(n int) string { return strings.Repeat("a", n) }
	for _, c := range []struct {
		row, rule string // of the document
		most      int
		field     string // in the error
		set       func(req *connectpluginv1.HandshakeRequest, n int)
	}{
		{"`self_id`", "at most 128 ASCII", 128, "self_id", func(r *connectpluginv1.HandshakeRequest, n int) { r.SelfId = long(n) }},
		{"`self_version`", "at most 64 ", 64, "self_version", func(r *connectpluginv1.HandshakeRequest, n int) {
			r.SelfVersion = "1.0.0-" + long(n-len("1.0.0-"))
		}},
		{"`min_version`", "at most 256 ", 256, "min_version", func(r *connectpluginv1.HandshakeRequest, n int) {
			r.Requires = []*connectpluginv1.ServiceDependency{{Type: "logger", MinVersion: ">=1.0.0" + strings.Repeat(" ", n-len(">=1.0.0"))}}
		}},
		{"`path`", "at most 1,024:", 1024, "provides", func(r *connectpluginv1.HandshakeRequest, n int) {
			r.Provides = []*connectpluginv1.ServiceDeclaration{{Type: "logger", Version: "1.0.0", Path: "/" + long(n-1)}}
		}},
		{"`client_metadata`", "at most 100 entries", 100, "client_metadata", func(r *connectpluginv1.HandshakeRequest, n int) {
			r.ClientMetadata = map[string]string{}
			for i := range n {
				r.ClientMetadata[fmt.Sprint(i)] = ""
			}
		}},
		{"`client_metadata`", "keys of 1 to 256 ", 256, "client_metadata", func(r *connectpluginv1.HandshakeRequest, n int) {
			r.ClientMetadata = map[string]string{long(n): ""}
		}},
		{"`client_metadata`", "values of at most 4,096 ", 4096, "client_metadata", func(r *connectpluginv1.HandshakeRequest, n int) {
			r.ClientMetadata = map[string]string{"key": long(n)}
		}},
		{"`provides`", "at most 256 entries each", 256, "requires", func(r *connectpluginv1.HandshakeRequest, n int) {
			r.Requires = nil
			for i := range n {
				r.Requires = append(r.Requires, &connectpluginv1.ServiceDependency{Type: fmt.Sprintf("t%d", i)})
			}
		}},
		{"`requested_plugins`", "entries of at most 256 ", 256, "requested_plugins", func(r *connectpluginv1.HandshakeRequest, n int) {
			r.RequestedPlugins = []string{long(n)}
		}},
		{"`client_nonce`", "32, or none", 32, "client_nonce", func(r *connectpluginv1.HandshakeRequest, n int) { r.ClientNonce = []byte(long(n)) }},
	} {
		t.Run(c.row+" "+c.rule, func(t *testing.T) {
			t.Parallel()
			documented := false
			for line := range strings.Lines(string(text)) {
				documented = documented || strings.HasPrefix(line, "| "+c.row) && strings.Contains(line, c.rule)
			}
			if !documented {
				t.Errorf("no row %s of docs/protocol.md says %q", c.row, c.rule)
			}
			host := hosttest.Start(t, func(s *connectplugin.ServeConfig) {
				s.Policy = &connectplugin.Policy{Default: &connectplugin.PluginPolicy{AllowUnproven: true}}
			})
			client := hosttest.HandshakeClient(t, host)
			for _, n := range []int{c.most, c.most + 1} {
				req := hosttest.OldRequest("plugin")
				c.set(req, n)
				_, err := client.Handshake(t.Context(), connect.NewRequest(req))
				if n == c.most && err != nil {
					t.Errorf("%d: %v", n, err)
				}
				if n > c.most && (connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), c.field)) {
					t.Errorf("%d: %v, want invalid_argument that names %s", n, err, c.field)
				}
			}
		})
	}
}
