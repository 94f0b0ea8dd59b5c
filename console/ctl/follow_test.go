package ctl_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/console/ctl"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A host that restarts, orderly or not, is said to have gone away, waited for and followed again: what the
// new one decides is shown, whose events begin with one.
func TestFollowOverRestarts(t *testing.T) {
	t.Parallel()
	r := &rig{dir: t.TempDir()}
	a := r.authority(t)
	host := hosttest.StartRestartable(t, func(c *connectplugin.ServeConfig) { admits(c, a) })
	r.Host, host.Authority = host.Host, a
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type follower struct {
		out, errs buffer
		code      chan int
	}
	all := map[string]*follower{"tail": {code: make(chan int, 1)}, "watch": {code: make(chan int, 1)}, "tail -o json": {code: make(chan int, 1)}}
	for command, f := range all {
		go func() {
			f.code <- ctl.Run(ctx, r.as(strings.Fields(command)...), ctl.Streams{Out: &f.out, Err: &f.errs})
		}()
	}
	shows := func(what string) {
		t.Helper()
		for command, f := range all {
			hosttest.Eventually(t, command+" shows "+what, func() bool { return strings.Contains(f.out.String(), what) })
		}
	}
	for n, end := range []func(testing.TB){nil, host.Stop, host.Kill} {
		if end != nil {
			end(t)
			host.Restart(t)
			host.Authority = a
		}
		for command, f := range all {
			hosttest.Eventually(t, command+" says that the host is followed again", func() bool { return strings.Count(f.errs.String(), "the host is followed again") >= n })
		}
		shows(host.Host.Enrol(t, "api", nil).RuntimeID())
	}
	cancel()
	const orderly = "connectpluginctl: the host went away or ended the stream (unavailable); trying again\nconnectpluginctl: the host is followed again\n"
	for command, f := range all {
		if !strings.HasPrefix(f.errs.String(), orderly) {
			t.Errorf("%s says of an orderly restart: %s", command, f.errs.String())
		}
		if code := <-f.code; code != 0 || strings.Contains(f.out.String(), "connectpluginctl:") {
			t.Errorf("%s: exit %d, %s", command, code, f.errs.String())
		}
	}
}

// A host that refuses whoever follows is not asked again and again.
func TestFollowEndsWhereTheHostRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var out, errs buffer
	code := make(chan int, 1)
	go func() { code <- ctl.Run(t.Context(), r.as("tail"), ctl.Streams{Out: &out, Err: &errs}) }()
	hosttest.Eventually(t, "tail shows something", func() bool { return out.String() != "" })
	r.RevokeSelf("operator")
	if got := <-code; got != 1 || !strings.Contains(errs.String(), "revoked") {
		t.Errorf("exit %d, %s", got, errs.String())
	}
}

// unread is written to by a command, and read by nobody.
type unread struct{ err error }

func (u unread) Write([]byte) (int, error) { return 0, u.err }

// A command whose output nobody reads any more ends and leaves the host at once, and one that cannot write
// says so.
func TestOutputThatNobodyReads(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Enrol(t, "api", nil)
	log := filepath.Join(r.dir, "audit.log")
	run(t, 0, "audit", "key", r.dir)
	writeLog(t, r.dir, log)
	verify := "audit verify " + log + " --key " + filepath.Join(r.dir, "audit.pub")
	for _, test := range []struct {
		err  error
		code int
		says string
	}{
		{&os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}, 0, ""},
		{errors.New("no space left"), 1, "connectpluginctl: what was asked for cannot be written: no space left\n"},
	} {
		for _, command := range []string{"watch", "tail", "plugins", "plugins -o json", "completion bash", verify} {
			var errs buffer
			if code := ctl.Run(t.Context(), r.as(strings.Fields(command)...), ctl.Streams{Out: unread{test.err}, Err: &errs}); code != test.code || errs.String() != test.says {
				t.Errorf("%s: exit %d, want %d: %s", command, code, test.code, errs.String())
			}
			for _, p := range r.Plugins() {
				if p.SelfID == "operator" {
					t.Errorf("%s leaves %s behind", command, p.RuntimeID)
				}
			}
		}
	}
}
