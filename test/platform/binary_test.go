package platform_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// intruder is a program that leaves a mark if it ever runs.
func intruder(mark string) string { return "#!/bin/sh\n: > " + mark + "\n" }

func TestAudit_GAPBINARY_OnlyWhatIsConfiguredRuns(t *testing.T) {
	t.Parallel()
	path, checksum := program()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := hex.DecodeString(checksum)
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(t.TempDir(), "mark")
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(intruder(mark)), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		edit    func(*connectplugin.PluginSpec)
		refused string // empty: it runs
	}{
		{"the checksum", func(*connectplugin.PluginSpec) {}, ""},
		{"with a prefix, in capitals", func(s *connectplugin.PluginSpec) { s.Checksum = "sha256:" + strings.ToUpper(checksum) }, ""},
		{"signed", func(s *connectplugin.PluginSpec) {
			s.Checksum, s.SignatureKey, s.Signature = "", public, ed25519.Sign(private, digest)
		}, ""},
		{"another checksum", func(s *connectplugin.PluginSpec) { s.Checksum = strings.Repeat("0", 64) }, "checksum"},
		{"another signature", func(s *connectplugin.PluginSpec) {
			s.SignatureKey, s.Signature = public, ed25519.Sign(private, digest[1:])
		}, "signature"},
		{"a script", func(s *connectplugin.PluginSpec) { s.BinaryPath, s.Checksum = script, "" }, "interpreter"},
		{"nothing", func(s *connectplugin.PluginSpec) { s.BinaryPath = path + "-not-there" }, "no such file"},
		{"a directory", func(s *connectplugin.PluginSpec) { s.BinaryPath = filepath.Dir(path) }, "regular file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			sp := spec()
			tt.edit(&sp)
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			_, _, err := h.Launcher().GetServiceClient("echo", "echo")
			switch {
			case tt.refused == "" && err != nil:
				t.Error(err)
			case tt.refused != "" && (!errors.Is(err, connectplugin.ErrBinaryRefused) || !strings.Contains(err.Error(), tt.refused)):
				t.Errorf("error %v, want one about %q", err, tt.refused)
			}
			if _, err := os.Stat(mark); err == nil {
				t.Error("the script ran")
			}
		})
	}
}

// The program is renamed away, overwritten and put back, again and again, while it is
// launched: what was not verified never runs.
func TestAudit_GAPBINARY_WhatWasCheckedIsWhatRuns(t *testing.T) {
	t.Parallel()
	original, _ := program()
	good, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, mark := filepath.Join(dir, "program"), filepath.Join(dir, "mark")
	h := start(t, "echo")
	sp := spec()
	sp.BinaryPath = path
	var swapping sync.WaitGroup
	stop := make(chan struct{})
	swaps := 0
	swapping.Go(func() {
		for ; ; swaps++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := swapProgram(dir, path, good, mark, swaps); err != nil {
				t.Error(err)
				return
			}
			runtime.Gosched()
		}
	})
	ran, refused := 0, 0
	for swapped := 0; (swapped < 4 || ran == 0) && !t.Failed() && ran+refused < 400; swapped++ {
		s := connectplugin.NewProcessStrategy() // which has seen nothing yet
		l := connectplugin.NewPluginLauncher(h.Platform(), nil)
		l.RegisterStrategy(s)
		l.Configure(map[string]connectplugin.PluginSpec{"echo": sp})
		_, err := l.GetService("echo", "echo")
		switch {
		case err == nil:
			ran++
		case errors.Is(err, connectplugin.ErrBinaryRefused):
			refused++
		default:
			t.Errorf("launch: %v", err)
		}
		l.Shutdown()
	}
	close(stop)
	swapping.Wait()
	if _, err := os.Stat(mark); err == nil {
		t.Error("the intruder ran")
	}
	t.Logf("%d launches ran, %d were refused, in %d swaps", ran, refused, swaps)
}

// swapProgram does one of several things to the program.
func swapProgram(dir, path string, good []byte, mark string, n int) error {
	content := good
	if n%3 != 0 {
		content = []byte(intruder(mark))
	}
	if n%2 == 0 { // in place
		return os.WriteFile(path, content, 0o700)
	}
	next := filepath.Join(dir, "next")
	if err := os.WriteFile(next, content, 0o700); err != nil {
		return err
	}
	return os.Rename(next, path)
}
