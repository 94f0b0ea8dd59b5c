// Command theirs is the host of hashicorp/go-plugin, with AutoMTLS, in bench-plugins. Its
// argument is the plugin.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	hclog "github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/bench/plugins/side"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := side.Serve(ctx, theirs{}, os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// theirs launches plugins as go-plugin does.
type theirs struct{}

// Launch implements side.Side.
func (theirs) Launch(context.Context, string) (side.Plugin, error) {
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "BENCH_PLUGIN", MagicCookieValue: "bench"},
		Plugins:          plugin.PluginSet{"echo": echoPlugin{}},
		Cmd:              exec.Command(os.Args[1]), //nolint:gosec,noctx // the command names it; go-plugin ends it
		AutoMTLS:         true,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off}),
	})
	p := &running{client: client}
	if err := p.connect(); err != nil {
		client.Kill()
		return nil, err
	}
	return p, nil
}

type text = wrapperspb.StringValue

type running struct {
	client *plugin.Client
	conn   grpc.ClientConnInterface
}

var errOther = errors.New("what is dispensed is no connection")

func (p *running) connect() error {
	rpc, err := p.client.Client()
	if err != nil {
		return err //nolint:wrapcheck // the side does
	}
	raw, err := rpc.Dispense("echo")
	if err != nil {
		return err //nolint:wrapcheck // as above
	}
	conn, ok := raw.(grpc.ClientConnInterface)
	if !ok {
		return errOther
	}
	p.conn = conn
	return nil
}

// Call implements side.Plugin.
func (p *running) Call(ctx context.Context, payload string) error {
	return p.conn.Invoke(ctx, "/bench.v1.Echo/Say", wrapperspb.String(payload), new(text)) //nolint:wrapcheck // the side does
}

// Pid implements side.Plugin.
func (p *running) Pid() int { return p.client.ReattachConfig().Pid }

// Stop implements side.Plugin.
func (p *running) Stop(context.Context) error {
	p.client.Kill()
	return nil
}

// echoPlugin is the client's half of the plugin.
type echoPlugin struct {
	plugin.NetRPCUnsupportedPlugin
}

// GRPCServer implements plugin.GRPCPlugin.
func (echoPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return errors.ErrUnsupported }

// GRPCClient implements plugin.GRPCPlugin.
func (echoPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}
