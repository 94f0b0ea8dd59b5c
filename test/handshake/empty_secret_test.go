package handshake_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A secret that cannot be read, as while its file is written anew, is no word of having none: who has to prove a secret besides its
// certificate is not taken by that alone.
func TestHandshake_AnEmptySecretIsNotNone(t *testing.T) {
	t.Parallel()
	var secret atomic.Pointer[connectplugin.Secret]
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"p": {}}}
		c.HandshakeAuth.Secret = func(string) connectplugin.Secret { return *secret.Load() }
	})
	tls, err := host.Authority.PluginTLS("p")
	if err != nil {
		t.Fatal(err)
	}
	enrol := func(has, shows connectplugin.Secret) error {
		secret.Store(&has)
		cfg := host.ClientConfig(t, "p")
		cfg.TLS, cfg.Secret = tls, shows
		_, err := hosttest.EnrolOnce(t.Context(), cfg)
		return err
	}
	if err := enrol(nil, nil); err != nil {
		t.Errorf("there is none: %v", err)
	}
	if err := enrol(hosttest.Secret, hosttest.Secret); err != nil {
		t.Errorf("there is one: %v", err)
	}
	for name, has := range map[string]connectplugin.Secret{
		"empty": {}, "cut off": hosttest.Secret[:7],
	} {
		for _, shows := range []connectplugin.Secret{nil, hosttest.Secret} {
			if err := enrol(has, shows); err == nil {
				t.Errorf("%s: a certificate alone is taken", name)
			}
		}
		said := slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
			return strings.Contains(e.Reason, "HandshakeAuth.Secret returned fewer than 16 bytes")
		})
		if !said {
			t.Errorf("%s: the audit does not say why", name)
		}
	}
}
