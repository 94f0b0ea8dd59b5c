package platform_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// The host's own caller gets whole responses of every size, streams as they come, and an
// error where the plugin breaks off.
func TestHostCallsItsPlugin(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"process", "in-memory"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": echoSpec(name)})
			call := caller(t, h, "echo")
			for _, n := range []int{0, 1, 60 << 10, 64 << 10, 64<<10 + 1, 300 << 10} {
				want := strings.Repeat("x", n)
				if got, err := call(want); got != want || err != nil {
					t.Errorf("%d bytes: %d, %v", n, len(got), err)
				}
			}
			url, client, err := h.Launcher().GetServiceClient("echo", "echo")
			if err != nil {
				t.Fatal(err)
			}
			for protocol, options := range map[string][]connect.ClientOption{"Connect": nil, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()}} {
				checkStream(t, protocol, connect.NewClient[text, text](client, url+echoStream, options...))
				resp, err := connect.NewClient[text, text](client, url+echoSay, options...).CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("one")))
				if err != nil || resp.Msg.GetValue() != "one" {
					t.Errorf("%s: %v, %v", protocol, resp, err)
				}
			}
			_, err = connect.NewClient[text, text](client, url+echoPath+"None").CallUnary(t.Context(), connect.NewRequest(&text{}))
			if connect.CodeOf(err) != connect.CodeUnimplemented {
				t.Errorf("what is not there: %v", err)
			}
		})
	}
}

// checkStream sends what it gets an answer to before it sends the next.
func checkStream(t *testing.T, protocol string, c *connect.Client[text, text]) {
	t.Helper()
	s := c.CallBidiStream(t.Context())
	for _, what := range []string{"one", "two", strings.Repeat("x", 200<<10)} {
		if err := s.Send(wrapperspb.String(what)); err != nil {
			t.Fatalf("%s: %v", protocol, err)
		}
		if m, err := s.Receive(); err != nil || m.GetValue() != what {
			t.Fatalf("%s: %d bytes: %v", protocol, len(what), err)
		}
	}
	if err := errors.Join(s.CloseRequest(), ended(s), s.CloseResponse()); err != nil {
		t.Errorf("%s: the end: %v", protocol, err)
	}
}

func ended(s *connect.BidiStreamForClient[text, text]) error {
	if _, err := s.Receive(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// A response that breaks off is no whole one, however much of it was there.
func TestHostSeesThatItsPluginBreaksOff(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	url, client, err := h.Launcher().GetServiceClient("echo", "echo")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"Cut", "CutLater"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+echoPath+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(r)
		if err != nil {
			continue // it says so at once
		}
		body, err := io.ReadAll(resp.Body)
		if err == nil {
			t.Errorf("%s: %d bytes are taken for all", path, len(body))
		}
		_ = resp.Body.Close()
	}
	if got, err := caller(t, h, "echo")("hello"); got != "hello" || err != nil {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

// A refusal that breaks off is not what its status alone would mean.
func TestAudit_USE23_ARefusalThatBreaksOffIsNone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"process", "in-memory"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": echoSpec(name)})
			url, client, err := h.Launcher().GetServiceClient("echo", "echo")
			if err != nil {
				t.Fatal(err)
			}
			for codec, option := range map[string]connect.ClientOption{"proto": connect.WithClientOptions(), "JSON": connect.WithProtoJSON()} {
				_, err := connect.NewClient[text, text](client, url+echoPath+"CutRefusal", option).CallUnary(t.Context(), connect.NewRequest(&text{}))
				if connect.CodeOf(err) != connect.CodeUnavailable {
					t.Errorf("%s: %v", codec, err)
				}
			}
			_, err = connect.NewClient[text, text](client, url+echoPath+"None").CallUnary(t.Context(), connect.NewRequest(&text{}))
			if connect.CodeOf(err) != connect.CodeUnimplemented {
				t.Errorf("what is not there: %v", err)
			}
		})
	}
}

// A plugin in this process that does not look at its context keeps its handler, and not whoever calls it.
func TestHostLeavesADeafPlugin(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		by   func(h *hosttest.Host, giveUp context.CancelFunc)
		code connect.Code
	}{
		"its caller gives up":   {func(_ *hosttest.Host, giveUp context.CancelFunc) { giveUp() }, connect.CodeCanceled},
		"its identity is ended": {func(h *hosttest.Host, _ context.CancelFunc) { h.Revoke(h.Plugins()[0].RuntimeID) }, connect.CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			entered, leave := make(chan struct{}), make(chan struct{})
			var calls sync.WaitGroup
			defer calls.Wait()
			defer close(leave)
			sp := echoSpec("in-memory")
			sp.ImplFactory = func() any {
				return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					close(entered)
					<-leave
				})
			}
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			url, client, err := h.Launcher().GetServiceClient("echo", "echo")
			if err != nil {
				t.Fatal(err)
			}
			ctx, giveUp := context.WithCancel(t.Context())
			defer giveUp()
			failed := make(chan error, 1)
			calls.Go(func() {
				_, err := connect.NewClient[text, text](client, url+echoSay).CallUnary(ctx, connect.NewRequest(&text{}))
				failed <- err
			})
			<-entered
			end.by(h, giveUp)
			if err := hosttest.Arrival(t, failed); connect.CodeOf(err) != end.code {
				t.Errorf("the call ends with %v", err)
			}
		})
	}
}

// A stream whose caller gives it up is none that has come to its end, for a plugin in this process, too, however late that hears of
// it: what Connect's client closes when it gets no answer is not what the plugin goes by.
func TestHostGivesUpAStream(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	entered, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	sp := echoSpec("in-memory")
	sp.ImplFactory = func() any {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-goOn
			_, err := io.Copy(io.Discard, r.Body)
			ended <- err
		})
	}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	url, client, err := h.Launcher().GetServiceClient("echo", "echo")
	if err != nil {
		t.Fatal(err)
	}
	body, sends := io.Pipe()
	ctx := &lateContext{Context: t.Context(), done: make(chan struct{})}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+echoSay, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/connect+proto")
	go func() {
		<-entered
		close(ctx.done)
	}()
	if resp, err := client.Do(r); err == nil {
		_ = resp.Body.Close()
		t.Errorf("an answer: %s", resp.Status)
	}
	_ = sends.Close() // as Connect's client does
	close(goOn)
	if err := hosttest.Arrival(t, ended); err == nil {
		t.Error("the plugin takes the stream for complete")
	}
	ctx.tell()
}

// lateContext is canceled when done is closed. Contexts below it hear of that when they are told.
type lateContext struct {
	context.Context

	done chan struct{}

	mu    sync.Mutex
	below []func()
}

func (c *lateContext) Done() <-chan struct{} { return c.done }

func (c *lateContext) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}

// AfterFunc is what package context asks for.
func (c *lateContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.below = append(c.below, f)
	return func() bool { return false }
}

func (c *lateContext) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.below {
		f()
	}
}

// echoSpec is the echo plugin as a process of its own, or in the host's.
func echoSpec(way string) connectplugin.PluginSpec {
	if way != "in-memory" {
		return spec()
	}
	return connectplugin.PluginSpec{Provides: []string{"echo"}, ImplFactory: func() any { return echoHandler() }, Plugin: memoryPlugin{
		metadata: connectplugin.PluginMetadata{Name: "echo", Path: echoPath, Version: "1.0.0"}, path: echoPath,
	}}
}
