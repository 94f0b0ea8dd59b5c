package recovery_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A plugin that is started before its credentials exist waits for them and says so.
func TestAwaitCredentials(t *testing.T) {
	t.Parallel()
	var log journal
	dir := filepath.Join(t.TempDir(), "provider")
	config := connectplugin.CredentialsConfig{Dir: dir, CheckInterval: time.Millisecond, Logger: log.logger()}
	got := make(chan error, 1)
	go func() {
		cfg, err := connectplugin.AwaitCredentials(t.Context(), config)
		if err == nil && cfg == nil {
			err = errors.New("no configuration")
		}
		got <- err
	}()
	hosttest.Eventually(t, "it says that it waits", func() bool { return log.warnings("waiting for credentials") == 1 })
	if err := hosttest.NewAuthority(t).WriteCredentials(dir, "provider"); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("%v", err)
	}
	if n := log.warnings("waiting"); n != 1 {
		t.Errorf("said %d times", n)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	config.Dir = filepath.Join(dir, "none")
	if _, err := connectplugin.AwaitCredentials(ctx, config); !errors.Is(err, context.Canceled) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("given up: %v", err)
	}
	config.Dir = dir
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := connectplugin.AwaitCredentials(t.Context(), config); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is there and wrong: %v", err)
	}
}
