package recovery_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Plaintext and an open policy are warned of where no logger is configured; where one is,
// the program's own log is left alone.
func TestAudit_USE40_DangerIsWarnedOfWithoutALogger(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(*slog.Logger) error
		want string
	}{
		"host in plaintext": {func(l *slog.Logger) error {
			_, err := newHost(t, &connectplugin.ServeConfig{AllowInsecure: true, Policy: policy(), Logger: l})
			return err
		}, "serving plaintext"},
		"open policy": {func(l *slog.Logger) error {
			_, err := newHost(t, &connectplugin.ServeConfig{AllowInsecure: true, Policy: connectplugin.OpenPolicy(), Logger: l})
			return err
		}, "open policy: whoever reaches the host"},
		"client in plaintext": {func(l *slog.Logger) error {
			c, err := connectplugin.NewClient(connectplugin.ClientConfig{HostURL: "http://127.0.0.1:1", AllowInsecure: true, Logger: l})
			if err == nil {
				err = c.Close()
			}
			return err
		}, "plaintext is allowed"},
	} {
		for _, own := range []bool{false, true} {
			var program, configured bytes.Buffer
			before := slog.Default()
			slog.SetDefault(slog.New(slog.NewTextHandler(&program, nil)))
			var l *slog.Logger
			if own {
				l = slog.New(slog.NewTextHandler(&configured, nil))
			}
			err := c.run(l)
			slog.SetDefault(before)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			told, silent := &program, &configured
			if own {
				told, silent = silent, told
			}
			if !strings.Contains(told.String(), c.want) || !strings.Contains(told.String(), "level=WARN") {
				t.Errorf("%s, own logger %t: logged %q", name, own, told)
			}
			if silent.Len() > 0 {
				t.Errorf("%s, own logger %t: the other log has %q", name, own, silent)
			}
		}
	}
}

func newHost(t *testing.T, cfg *connectplugin.ServeConfig) (*connectplugin.Host, error) {
	t.Helper()
	h, err := connectplugin.NewHost(cfg)
	if err == nil {
		t.Cleanup(func() { _ = h.Shutdown(t.Context()) })
	}
	return h, err
}
