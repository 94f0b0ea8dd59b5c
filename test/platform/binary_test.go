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
	"sync/atomic"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
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

// The program is renamed away, overwritten and put back, a thousand times and more, while it is
// launched: what was not verified never runs.
func TestAudit_GAPBINARY_WhatWasCheckedIsWhatRuns(t *testing.T) {
	t.Parallel()
	const least, each = 1000, 40
	swap := newSwap(t)
	h := start(t, "echo")
	sp := spec()
	sp.BinaryPath = swap.path
	var swapping sync.WaitGroup
	stop := make(chan struct{})
	var swaps atomic.Int64
	swapping.Go(func() {
		for ; ; swaps.Add(1) {
			select {
			case <-stop:
				return
			default:
			}
			if err := swap.once(swaps.Load()); err != nil {
				t.Error(err)
				return
			}
			runtime.Gosched()
		}
	})
	ran, refused := 0, 0
	for (ran == 0 || refused == 0 || swaps.Load() < least) && !t.Failed() {
		before := swaps.Load()
		hosttest.Eventually(t, "it is swapped", func() bool { return swaps.Load() >= before+each || t.Failed() })
		l := connectplugin.NewPluginLauncher(h.Platform(), nil) // which has seen nothing yet
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
	if exists(swap.mark) {
		t.Error("the intruder ran")
	}
	t.Logf("%d launches ran, %d were refused, in %d swaps", ran, refused, swaps.Load())
}

// swap is a program whose file changes all the time.
type swap struct {
	path, mark string
	good, next string // the program, and what takes its name
	begins     []byte // the program
}

func newSwap(t *testing.T) *swap {
	t.Helper()
	dir := t.TempDir()
	s := &swap{
		path: filepath.Join(dir, "program"), mark: filepath.Join(dir, "mark"), good: filepath.Join(dir, "good"), next: filepath.Join(dir, "next"),
	}
	original, _ := program()
	data, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	s.begins = data[:len(intruder(s.mark))]
	if err := errors.Join(os.WriteFile(s.good, data, 0o700), os.Link(s.good, s.path)); err != nil {
		t.Fatal(err)
	}
	return s
}

// once does one of several things to the program, which is what it was after all of them.
func (s *swap) once(n int64) error {
	switch n % 4 {
	case 0, 1: // another file takes its name, and is overwritten in turn
		if n%4 == 1 {
			return os.WriteFile(s.path, []byte(intruder(s.mark)+"\n"), 0o700)
		}
		return errors.Join(os.WriteFile(s.next, []byte(intruder(s.mark)), 0o700), os.Rename(s.next, s.path))
	case 2: // it is put back
		return errors.Join(os.Link(s.good, s.next), os.Rename(s.next, s.path))
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, over := f.WriteAt([]byte(intruder(s.mark)), 0) // overwritten in place, and back
	runtime.Gosched()
	_, back := f.WriteAt(s.begins, 0)
	return errors.Join(over, back, f.Close())
}
