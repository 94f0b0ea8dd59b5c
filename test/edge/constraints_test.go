package edge_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// The constraints of a handshake are bounded together, also of somebody who has paid: it may list hundreds, each of which
// may take as long as all that a plugin lists. Those that plugins write are taken, however many. A client says so before.
func TestAudit_ATK03_TheConstraintsOfAHandshake(t *testing.T) {
	t.Parallel()
	host := unprovenHost(t, func(*connectplugin.ServeConfig) {})
	client := hosttest.HandshakeClient(t, host)
	const many = 250
	for what, tt := range map[string]struct {
		constraint string
		taken      bool
	}{
		"as plugins write them": {">=1.%d.0, <2", true},
		"many plain versions":   {"<9.%d" + strings.Repeat(" <9", 15), true},
		"many builds":           {"<9.%d+b" + strings.Repeat(" <9+b", 15), false},
		"long":                  {">=1.2.%d+" + strings.Repeat("a", 240), false},
	} {
		m := hosttest.OldRequest("plugin")
		cfg := host.ClientConfig(t, "plugin")
		for i := range many {
			name, constraint := fmt.Sprint("type-", i), fmt.Sprintf(tt.constraint, i)
			m.Requires = append(m.Requires, &connectpluginv1.ServiceDependency{Type: name, MinVersion: constraint})
			cfg.Metadata.Requires = append(cfg.Metadata.Requires, connectplugin.ServiceDependency{Type: name, MinVersion: constraint})
		}
		_, err := client.Handshake(t.Context(), connect.NewRequest(m))
		if refused := connect.CodeOf(err) == connect.CodeInvalidArgument && strings.Contains(err.Error(), "min_version: constraints: those that are more than"); refused == tt.taken {
			t.Errorf("%s: %v", what, err)
		}
		err = cfg.Validate()
		if refused := errors.Is(err, connectplugin.ErrInvalidConfig) && strings.Contains(err.Error(), "MinVersion: constraints: those that are more than"); refused == tt.taken {
			t.Errorf("%s, of a client: %v", what, err)
		}
	}
}
