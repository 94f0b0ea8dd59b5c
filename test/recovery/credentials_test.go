package recovery_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
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

// A plugin that is started while its credentials are being copied to it finds files that are not
// whole yet: it looks again, also where nothing was missing before. What stays damaged is told.
func TestAwaitCredentialsOnTheirWay(t *testing.T) {
	t.Parallel()
	for _, part := range []string{"ca.crt", "tls.crt", "tls.key"} {
		for name, first := range map[string]bool{"after it waited": false, "at its start": true} {
			t.Run(part+" "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { copyDuring(t, part, first) })
			})
		}
	}
}

// copyDuring starts a plugin before one of its files is whole; first says that all of them are
// there so far.
func copyDuring(t *testing.T, part string, first bool) {
	t.Helper()
	dir := t.TempDir()
	if err := hosttest.NewAuthority(t).WriteCredentials(dir, "provider"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, part)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(whole[:len(whole)/2])
	if !first {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan error, 1)
	config := connectplugin.CredentialsConfig{Dir: dir, CheckInterval: time.Second}
	await := func() {
		_, err := connectplugin.AwaitCredentials(t.Context(), config)
		got <- err
	}
	go await()
	synctest.Wait()
	if !first {
		write(whole[:len(whole)/2])
		time.Sleep(time.Second) // of the bubble
		synctest.Wait()
	}
	write(whole)
	if err := <-got; err != nil {
		t.Errorf("what was on its way: %v", err)
	}
	write(whole[:len(whole)/2])
	before := time.Now()
	go await()
	if err := <-got; err == nil || errors.Is(err, fs.ErrNotExist) || time.Since(before) != time.Second {
		t.Errorf("what stays damaged: %v after %v", err, time.Since(before))
	}
}
