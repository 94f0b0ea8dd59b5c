package platform_test

import (
	"context"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestAudit_PROTO51_H12_TheConfigurationWins(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, word, want string
		provides         []string
	}{
		{"the same self id", "self=echo", "", []string{"echo"}},
		{"no self id", "", "", []string{"echo"}},
		{"nothing expected", "type=other", "", nil},
		{"another self id", "self=admin", `launched this plugin as "echo"`, []string{"echo"}},
		{"another service", "type=other", `declares ["other"]`, []string{"echo"}},
		{"a service fewer", "", `declares ["echo"]`, []string{"echo", "more"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo", "admin")
			sp := spec(tt.word)
			sp.Provides = tt.provides
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			_, err := h.Launcher().GetDefaultService("echo")
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %s", err, tt.want)
			}
			if left := h.Plugins(); len(left) != 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

func TestLaunchHasNoRightsThatPolicyDoesNotGive(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"echo": {Provides: []string{"other"}}, "honest": {Provides: []string{"echo"}},
		}}
	})
	stranger, denied, honest := spec(), spec(), spec()
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"stranger": stranger, "echo": denied, "honest": honest})
	if _, err := h.Launcher().GetService("stranger", "echo"); err == nil || !strings.Contains(err.Error(), "policy does not know") {
		t.Errorf("unknown to policy: %v", err)
	}
	if _, err := h.Launcher().GetService("echo", "echo"); err == nil || !strings.Contains(err.Error(), "registration refused: service \"echo\"") {
		t.Errorf("not allowed to provide: %v", err)
	}
	if got, err := caller(t, h, "honest")("x"); got != "x" || err != nil {
		t.Errorf("allowed: %q, %v", got, err)
	}
}

func TestAudit_H57_OnlyTheLaunchedInstanceSatisfies(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{AllowMultiple: []string{"*"}, Plugins: map[string]connectplugin.PluginPolicy{
			"echo": {Provides: []string{"*"}, AllowOwnAddress: true}, "late": {Provides: []string{"*"}},
		}}
	})
	// One that enrolled by itself provides the same, even under the same self id.
	h.StartPlugin(t, "echo", func(c *connectplugin.PluginServerConfig) {
		c.Client.Secret = nil
		c.Services = []connectplugin.PluginService{{Type: "echo", Version: "1.0.0", Path: echoPath, Handler: echoHandler()}}
	})
	late, honest := spec("hang"), spec()
	late.ReadyTimeout = 50 * time.Millisecond
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"late": late, "echo": honest})
	if url, err := h.Launcher().GetService("late", "echo"); err == nil {
		t.Errorf("a plugin that never came provides its service at %s", url)
	}
	call := caller(t, h, "echo")
	for range 20 {
		pid, err := call("pid")
		if err != nil || pid != strconv.Itoa(launched(t, h, "echo").Pid) {
			t.Fatalf("process %s answers, %v", pid, err)
		}
	}
}

// launched returns what the host knows of a launched plugin.
func launched(t testing.TB, h *hosttest.Host, name string) connectplugin.LaunchStatus {
	t.Helper()
	for _, p := range h.Plugins() {
		if p.Launch != nil && p.Launch.Name == name {
			return *p.Launch
		}
	}
	return connectplugin.LaunchStatus{}
}

func TestAudit_H58_ChildGetsOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	sp := spec()
	sp.Env = []string{"GIVEN=1"}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	env, err := call("env")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(env, "\n") {
		switch key, _, _ := strings.Cut(line, "="); key {
		case "GIVEN", "HOST_URL":
		default:
			t.Errorf("it has %s", line)
		}
	}
	args, err := call("args")
	if err != nil || strings.Contains(args, "BEGIN") || strings.Contains(args, "spiffe") {
		t.Errorf("arguments %q, %v", args, err)
	}
	files, err := call("files")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(files, "\n") {
		number, target, _ := strings.Cut(line, " ")
		n, _ := strconv.Atoi(number)
		shared := strings.HasPrefix(target, "/proc") || strings.HasPrefix(target, "anon_inode") || strings.HasPrefix(target, "socket")
		inherited := strings.Contains("\n"+inheritedFiles, "\n"+line+"\n") // by the tests, from whoever runs them
		if n > 3 && !shared && !inherited && target != "" && !strings.HasPrefix(target, "/sys/") {
			t.Errorf("it has %s open", line)
		}
	}
}

func TestAudit_H58_SquatterIsRefused(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	squatter := hosttest.Listen(t)
	defer func() { _ = squatter.Close() }()
	taken := make(chan struct{}, 16)
	go func() {
		for {
			conn, err := squatter.Accept()
			if err != nil {
				return
			}
			taken <- struct{}{}
			_ = conn.Close()
		}
	}()
	addr, _ := squatter.Addr().(*net.TCPAddr)
	sp := spec()
	sp.Port = addr.Port
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	_, err := h.Launcher().GetService("echo", "echo")
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("the port is taken: %v", err)
	}
	if len(taken) != 0 {
		t.Error("the host called the squatter")
	}
	_ = squatter.Close()
	if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
		t.Errorf("the port is free: %q, %v", got, err)
	}
	if got := h.Plugins()[0].Endpoint; got != "https://127.0.0.1:"+strconv.Itoa(addr.Port) {
		t.Errorf("it listens at %s", got)
	}
}

func TestAudit_GAPTERMINATION_StopEscalates(t *testing.T) {
	t.Parallel()
	for name, words := range map[string][]string{
		"polite": {"child=polite-"}, "deaf": {"deaf", "child=deaf-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			token := name + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
			sp := spec(append(words, "child="+token)...)
			sp.StopGrace = 20 * time.Millisecond
			exits := make(chan connectplugin.PluginExit, 1)
			sp.OnExit = func(e connectplugin.PluginExit) { exits <- e }
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			call := caller(t, h, "echo")
			if _, err := call("x"); err != nil {
				t.Fatal(err)
			}
			if len(running(t, token)) == 0 {
				t.Fatal("it has no child")
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			if err := h.Launcher().Stop(ctx, "echo"); err != nil {
				t.Fatal(err)
			}
			allGone(t, token)
			if e := <-exits; !e.Requested || e.Pid == 0 || e.Name != "echo" {
				t.Errorf("exit %+v", e)
			}
			if _, err := call("x"); err == nil {
				t.Error("it answers")
			}
		})
	}
}

func TestAudit_H60_HungPluginHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	sp := spec("deaf")
	sp.StopGrace = time.Hour // but the context ends before
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	caller(t, h, "echo")
	if err := syscall.Kill(launched(t, h, "echo").Pid, syscall.SIGSTOP); err != nil { // it hears nothing, and no SIGTERM either
		t.Fatal(err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Launcher().Stop(stopped, "echo"); err != nil {
		t.Fatal(err)
	}
	if got := h.Plugins(); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
}
