package platform_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// roles are the programs that this test binary can be.
var roles = map[string]func(ctx context.Context, args []string) error{
	"plugin": pluginMain,
	"sleep":  sleepMain,
	"host":   hostMain,
}

// The service that plugins of these tests provide.
const (
	echoPath   = "/test.v1.Echo/"
	echoSay    = echoPath + "Say"
	echoStream = echoPath + "Stream"
)

// lastWords is how long the answer is after which a plugin ends.
const lastWords = 1 << 10

type text = wrapperspb.StringValue

// pluginMain is a plugin as anybody writes it, with some ways to misbehave, one word each.
func pluginMain(ctx context.Context, words []string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg := &connectplugin.PluginServerConfig{
		Client:   connectplugin.ClientConfig{SelfVersion: "1.0.0"},
		Services: []connectplugin.PluginService{{Type: "echo", Version: "1.0.0", Path: echoPath, Handler: echoHandler()}},
	}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		if err := misbehave(cfg, name, value); err != nil {
			return err
		}
	}
	return connectplugin.ServePlugin(ctx, cfg)
}

// sleepMain sleeps, whatever anybody says to it. Its argument tells it from others.
func sleepMain(context.Context, []string) error {
	signal.Ignore(syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)
	<-time.After(time.Hour)
	return nil
}

// misbehave does what a word says.
func misbehave(cfg *connectplugin.PluginServerConfig, name, value string) error {
	switch name {
	case "self":
		cfg.Client.SelfID = value
	case "type":
		cfg.Services[0].Type = value
	case "crash":
		return errors.New(value)
	case "print":
		fmt.Println(value)
	case "flood":
		for range 4096 {
			fmt.Println(strings.Repeat("x", 1023))
		}
	case "hang":
		touch(value)
		<-make(chan struct{})
	case "deaf":
		signal.Ignore(syscall.SIGTERM, os.Interrupt)
		cfg.GracefulShutdownTimeout = time.Hour
	case "child", "daemon":
		cmd := exec.Command(os.Args[0], "sleep", value)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: name == "daemon"} // which leaves the process group
		return cmd.Start()
	case "unhealthy":
		cfg.Health = func() (connectpluginv1.HealthState, string) {
			return connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, value
		}
	case "sick":
		cfg.Health = func() (connectpluginv1.HealthState, string) {
			touch(value)
			return connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, ""
		}
	case "says":
		cfg.Services[0].Metadata = map[string]string{"base_url": value}
	case "leave": // its process group, for that of its host
		group, err := syscall.Getpgid(os.Getppid())
		return errors.Join(err, syscall.Setpgid(0, group))
	case "close": // all that it inherited
		cfg.OnConnected = func(context.Context, *connectplugin.Client) error {
			return errors.Join(syscall.Close(0), syscall.Close(1), syscall.Close(2))
		}
	case "freeze":
		cfg.OnConnected = func(context.Context, *connectplugin.Client) error { return syscall.Kill(os.Getpid(), syscall.SIGSTOP) }
	case "road": // the host reaches it over another socket
		cfg.OnConnected = func(context.Context, *connectplugin.Client) error { return detour(value) }
	case "clog":
		cfg.OnConnected = func(context.Context, *connectplugin.Client) error { return clog() }
	case "":
	default:
		return fmt.Errorf("unknown word %q", name)
	}
	return nil
}

// touch makes a file, where it has a name.
func touch(path string) {
	if path != "" {
		_ = os.WriteFile(path, nil, 0o600)
	}
}

// clog fills the pipe over which the host speaks with what the library does not understand, and
// so does not read.
func clog() error {
	const lifeline = "/proc/self/fd/3"
	pipe, err := os.OpenFile(lifeline, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = pipe.Close() }()
	if _, err := pipe.Write(bytes.Repeat([]byte{0xff}, 64)); err != nil {
		return err
	}
	_ = pipe.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // by then it is full
	_, _ = pipe.Write(make([]byte, 1<<20))
	return nil
}

// echoHandler serves the service: Say answers with what it got, and what it runs as where it
// was asked for that.
func echoHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(echoSay, connect.NewUnaryHandler(echoSay, func(ctx context.Context, req *connect.Request[text]) (*connect.Response[text], error) {
		if mark, ok := strings.CutPrefix(req.Msg.GetValue(), "stopping "); ok {
			touch(mark + ".called")
			<-connectplugin.Stopping(ctx)
			touch(mark)
			<-make(chan struct{}) // though it was told
		}
		answer, err := say(req.Msg.GetValue())
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(wrapperspb.String(answer)), nil
	}))
	for path, size := range map[string]int{"Cut": 100, "CutLater": 200 << 10} { // of a response that never ends well
		mux.HandleFunc(echoPath+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(make([]byte, size))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
	}
	mux.HandleFunc(echoPath+"Last", func(w http.ResponseWriter, r *http.Request) { // the process ends when all of that was sent
		context.AfterFunc(r.Context(), func() { time.AfterFunc(500*time.Millisecond, func() { os.Exit(0) }) })
		_, _ = w.Write(make([]byte, lastWords))
	})
	mux.HandleFunc(echoPath+"CutRefusal", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"code":"not_fou`))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.Handle(echoStream, connect.NewBidiStreamHandler(echoStream, func(_ context.Context, s *connect.BidiStream[text, text]) error {
		for {
			m, err := s.Receive()
			if err != nil {
				return nil //nolint:nilerr // the caller is done
			}
			if err := s.Send(m); err != nil {
				return err
			}
		}
	}))
	return mux
}

func say(what string) (string, error) {
	if gate, ok := strings.CutPrefix(what, "until "); ok {
		for _, err := os.Stat(gate); err != nil; _, err = os.Stat(gate) {
			time.Sleep(time.Millisecond) // in a process of its own
		}
	}
	switch what {
	case "user":
		return fmt.Sprint(os.Getuid(), os.Getgid()), nil
	case "pid":
		return fmt.Sprint(os.Getpid()), nil
	case "env":
		return strings.Join(os.Environ(), "\n"), nil
	case "args":
		return strings.Join(os.Args, "\n"), nil
	case "dir":
		return os.Getwd()
	case "limits":
		limits, err := os.ReadFile("/proc/self/limits")
		return string(limits), err
	case "files":
		return openFiles(), nil
	case "crash":
		fmt.Fprintln(os.Stderr, "last words")
		os.Exit(3)
	}
	return what, nil
}

// openFiles lists what this process has open.
func openFiles() string {
	var open []string
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		open = append(open, e.Name()+" "+target)
	}
	return strings.Join(open, "\n")
}
