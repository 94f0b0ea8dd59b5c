package platform_test

import (
	"cmp"
	"context"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// moment is one in the life of a plugin which has a child: whoever reaches it makes a file, and
// stays there until somebody is killed.
type moment struct {
	name string
	word string // of the instance that is launched first; MARK stands for the file
	next string // of the one that replaces it, empty for none
	call bool   // a call is in flight, which the plugin is told to end and does not
	// grace is what it has for that, zero for longer than a test lasts.
	grace time.Duration
	end   func(context.Context, *connectplugin.Host) error
}

var moments = []moment{
	{name: "launch, before it enrols", word: "hang=MARK"},
	{name: "launch, before it is healthy", word: "sick=MARK"},
	{name: "in service"},
	{name: "replace, before the new one enrols", next: "hang=MARK"},
	{name: "replace, before the new one is healthy", next: "sick=MARK"},
	{name: "replace, while the old one drains", next: "self=echo", call: true},
	{name: "stop, while it drains", call: true, end: func(ctx context.Context, h *connectplugin.Host) error {
		return h.Launcher().Stop(ctx, "echo")
	}},
	{name: "shutdown, while it drains", call: true, end: func(ctx context.Context, h *connectplugin.Host) error {
		return h.Shutdown(ctx)
	}},
}

// Names of the plugins of a moment, which their children have among their arguments.
const (
	firstChild  = "first-"
	secondChild = "second-"
)

// victim is a word that the arguments of the instance have which is killed at the moment.
func (m moment) victim(token string) string {
	if m.next != "" && !m.call {
		return secondChild + token
	}
	return firstChild + token
}

// spec is that of an instance with a child. Nothing but an end from outside ends its waits.
func (m moment) spec(word, token, mark string) connectplugin.PluginSpec {
	sp := spec("child="+token, strings.ReplaceAll(word, "MARK", mark))
	sp.StopGrace, sp.ReadyTimeout = cmp.Or(m.grace, wait), wait
	sp.Restart = connectplugin.RestartPolicy{MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, MaxFailures: 1000}
	return sp
}

// live does what leads to the moment, and returns what came of it.
func (m moment) live(ctx context.Context, h *connectplugin.Host, token, mark string) error {
	l := h.Launcher()
	l.Configure(map[string]connectplugin.PluginSpec{"echo": m.spec(m.word, firstChild+token, mark)})
	url, client, err := l.GetServiceClient("echo", "echo")
	if err != nil {
		return err
	}
	if m.call {
		called := make(chan struct{})
		defer func() { <-called }()
		calling, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		go func() {
			defer close(called)
			c := connect.NewClient[text, text](client, url+echoSay)
			_, _ = c.CallUnary(calling, connect.NewRequest(wrapperspb.String("stopping "+mark))) // is broken off
		}()
		if err := awaitFile(ctx, mark+".called"); err != nil {
			return err
		}
	}
	switch {
	case m.next != "":
		l.Configure(map[string]connectplugin.PluginSpec{"echo": m.spec(m.next, secondChild+token, mark)})
		return l.Replace(ctx, "echo")
	case m.end != nil:
		return m.end(ctx, h)
	}
	return os.WriteFile(mark, nil, 0o600)
}

// awaitFile waits for a file that another process makes.
func awaitFile(ctx context.Context, path string) error {
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond): // polls the file system
		}
	}
}
