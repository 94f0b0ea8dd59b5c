package recovery_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
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
		"open policy at run time": {func(l *slog.Logger) error {
			h, err := newHost(t, &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), Policy: policy(), Logger: l})
			if err == nil {
				err = h.SetPolicy(connectplugin.OpenPolicy())
			}
			return err
		}, "open policy: whoever reaches the host"},
		"plugin in plaintext": {func(l *slog.Logger) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			cfg := &connectplugin.PluginServerConfig{Services: echoServices()}
			cfg.Client = connectplugin.ClientConfig{HostURL: "http://127.0.0.1:1", AllowInsecure: true, SelfID: "provider", Logger: l}
			return connectplugin.ServePlugin(ctx, cfg)
		}, "plaintext is allowed"},
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

// The variable for development silences the warnings of plaintext, and those alone; what is no
// word for "on" silences nothing.
func TestAudit_USE40_WhatTheVariableSilences(t *testing.T) {
	for value, silent := range map[string]bool{"1": true, "true": true, "0": false, "false": false, "perhaps": false, "": false} {
		t.Setenv("CONNECTPLUGIN_DISABLE_TLS_WARNING", value)
		var program bytes.Buffer
		before := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&program, nil)))
		_, err := newHost(t, &connectplugin.ServeConfig{AllowInsecure: true, Policy: connectplugin.OpenPolicy()})
		c, clientErr := connectplugin.NewClient(connectplugin.ClientConfig{HostURL: "http://127.0.0.1:1", AllowInsecure: true})
		slog.SetDefault(before)
		if err != nil || clientErr != nil || c.Close() != nil {
			t.Fatal(err, clientErr)
		}
		for text, warned := range map[string]bool{"serving plaintext": !silent, "plaintext is allowed": !silent, "open policy": true} {
			if strings.Contains(program.String(), text) != warned {
				t.Errorf("%q: %s: want warned %t, logged %s", value, text, warned, program.String())
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
