package handshake_test

import (
	"slices"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// An editor's byte order mark is no part of the secret that somebody wrote: whoever read the same text otherwise would prove
// another one, and nobody would see why. Bytes that begin so by chance are a secret.
func TestHandshake_ASecretWithAByteOrderMark(t *testing.T) {
	t.Parallel()
	const plain = "sixteen bytes or more"
	const says = "begins with a byte order mark"
	random := connectplugin.Secret("\xef\xbb\xbf\x00\x9c\xd1\x7f\x02\xa1\x17\x90\xff\x00\x31\x44\x2c")
	marked := connectplugin.Secret("\xef\xbb\xbf" + plain + "\r\n")

	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"p": {}}}
		c.HandshakeAuth.Secret = func(string) connectplugin.Secret { return marked }
	})
	cfg := host.ClientConfig(t, "p")
	cfg.Secret = connectplugin.Secret(plain)
	if _, err := hosttest.EnrolOnce(t.Context(), cfg); err == nil {
		t.Error("a host with another secret takes the plugin")
	}
	if !slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool { return strings.Contains(e.Reason, says) }) {
		t.Error("the audit does not say why")
	}

	for name, secret := range map[string]connectplugin.Secret{
		"UTF-8": marked, "UTF-16": connectplugin.Secret("\xff\xfe" + strings.Join(strings.Split(plain, ""), "\x00") + "\x00"),
	} {
		cfg.Secret = secret
		if _, err := connectplugin.NewClient(cfg); err == nil || !strings.Contains(err.Error(), "Secret: it "+says) {
			t.Errorf("%s, of a client: %v", name, err)
		}
		policy := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"p": {Secret: secret}}}
		if err := host.SetPolicy(policy); err == nil || !strings.Contains(err.Error(), `Policy.Plugins["p"].Secret: it `+says) {
			t.Errorf("%s, of a policy: %v", name, err)
		}
	}
	cfg.Secret = random
	client, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatalf("random bytes: %v", err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}
