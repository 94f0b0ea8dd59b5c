package platform_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Whatever a plugin does with its descriptors, its process group and its signals, stopping it is
// over soon after the context is, and nothing of it stays.
func TestAudit_GAPTERMINATION_HostilePluginEndsWithTheContext(t *testing.T) {
	t.Parallel()
	for name, words := range map[string][]string{
		"does not read what the host says":      {"clog", "deaf"},
		"has joined the group of its host":      {"leave", "deaf"},
		"has closed what it inherited":          {"close", "deaf"},
		"has a child in the group that it left": {"child=TOKEN", "leave", "deaf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			token := "hostile-" + strconv.Itoa(os.Getpid()) + "-" + strings.ReplaceAll(name, " ", "-")
			sp := spec(strings.Fields(strings.ReplaceAll(strings.Join(words, " ")+" print=TOKEN", "TOKEN", token))...)
			sp.StopGrace = time.Hour // but the context ends before
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			stopped := make(chan error, 1)
			go func() { stopped <- h.Launcher().Stop(ctx, "echo") }()
			select {
			case err := <-stopped:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(wait):
				t.Fatal("Stop waits for the plugin")
			}
			allGone(t, token)
			if got := h.Plugins(); len(got) != 0 {
				t.Errorf("left: %+v", got)
			}
		})
	}
}

// A launch that does not become a plugin is over with its time, whatever the process does.
func TestAudit_H53_HostileLaunchEndsInTime(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"freeze", "hang", "leave hang"} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			token, mark := "late-"+strconv.Itoa(os.Getpid())+"-"+strings.ReplaceAll(word, " ", "-"), filepath.Join(t.TempDir(), "mark")
			sp := spec(strings.Fields("print=" + token + " " + strings.ReplaceAll(word, "hang", "hang="+mark))...)
			// On a busy machine a process may take longer until it hangs.
			for sp.ReadyTimeout = 3 * time.Second; ; sp.ReadyTimeout *= 2 {
				h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
				if _, err := h.Launcher().GetService("echo", "echo"); err == nil || !strings.Contains(err.Error(), "not healthy in time") {
					t.Errorf("error %v", err)
				}
				if word == "freeze" || exists(mark) {
					break
				}
				if sp.ReadyTimeout > hosttest.Wait {
					t.Fatal("it never got as far as to hang")
				}
			}
			allGone(t, token)
			if got := h.Plugins(); len(got) != 0 {
				t.Errorf("left: %+v", got)
			}
		})
	}
}

// A launched plugin is where the host has it listen: one that says something else is refused, so
// that the host calls nobody for it.
func TestAudit_H58_PluginThatNamesAnAddressOfOthers(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	called := make(chan struct{}, 1)
	somewhere := hosttest.Listen(t)
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for c, err := somewhere.Accept(); err == nil; c, err = somewhere.Accept() {
			_ = c.Close()
			select {
			case called <- struct{}{}:
			default:
			}
		}
	}()
	_, port, _ := net.SplitHostPort(hosttest.FreeAddr(t))
	elsewhere := "https://" + somewhere.Addr().String()
	for name, tt := range map[string]struct {
		word, port string
		refused    bool
	}{
		"at a socket":                 {"", "0", false},
		"at a socket, says elsewhere": {"says=" + elsewhere, "0", true},
		"at a socket, says the host":  {"says=" + h.URL, "0", true},
		"at a port":                   {"", port, false},
		"at a port, the library says": {"says=" + elsewhere, port, false},
		"at a port, says it itself":   {"says=https://127.0.0.1:" + port, port, false},
	} {
		sp := spec(tt.word)
		sp.Port, _ = strconv.Atoi(tt.port)
		h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
		_, err := h.Launcher().GetService("echo", "echo")
		if refused := err != nil && strings.Contains(err.Error(), "launched it to listen"); refused != tt.refused || err != nil && !refused {
			t.Errorf("%s: %v", name, err)
		}
		var stop error
		if err == nil {
			stop = h.Launcher().Stop(t.Context(), "echo")
		}
		if left := h.Plugins(); stop != nil || len(left) != 0 {
			t.Errorf("%s: %v, left: %+v", name, stop, left)
		}
	}
	_ = somewhere.Close()
	<-accepting
	if len(called) != 0 {
		t.Error("the host called somebody else")
	}
}
