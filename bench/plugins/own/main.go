// Command own is the host of this library in bench-plugins. Its argument is the plugin.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/plugins/side"
)

const (
	say       = "/bench.v1.Echo/Say"
	leastSize = 1 << 10
	most      = 64 // plugins at the same time
	unlimited = 1e6
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	program, err := os.ReadFile(os.Args[1])
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	sum := sha256.Sum256(program)
	specs, rules := map[string]connectplugin.PluginSpec{}, map[string]connectplugin.PluginPolicy{}
	add := func(name string) {
		specs[name] = connectplugin.PluginSpec{
			BinaryPath: os.Args[1], Checksum: hex.EncodeToString(sum[:]), Provides: []string{name}, Args: []string{name},
			Restart: connectplugin.RestartPolicy{Never: true},
		}
		rules[name] = connectplugin.PluginPolicy{Provides: []string{name}}
	}
	add("plugin")
	for i := range most {
		add("plugin" + strconv.Itoa(i))
	}
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, Policy: &connectplugin.Policy{Plugins: rules},
		Limits: connectplugin.Limits{
			RequestsPerSecond: unlimited, RequestBurst: unlimited, HandshakesPerSecond: unlimited, HandshakeBurst: unlimited,
		},
	})
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	host.Launcher().Configure(specs)
	return serve(ctx, host)
}

// serve obeys orders while the host serves.
func serve(ctx context.Context, host *connectplugin.Host) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	life, end := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- host.Serve(life, l) }()
	err = awaitAddr(host, served)
	if err == nil {
		err = side.Serve(ctx, own{host}, os.Stdin, os.Stdout)
		end()
		err = errors.Join(err, <-served)
	}
	end()
	return err
}

// awaitAddr waits until the host serves.
func awaitAddr(host *connectplugin.Host, served <-chan error) error {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for host.Addr() == "" {
		select {
		case <-look.C:
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		}
	}
	return nil
}

// own launches plugins as this library does.
type own struct{ host *connectplugin.Host }

// Launch implements side.Side.
func (o own) Launch(_ context.Context, name string) (side.Plugin, error) {
	url, client, err := o.host.Launcher().GetServiceClient(name, name)
	if err != nil {
		return nil, err //nolint:wrapcheck // the side does
	}
	c := connect.NewClient[text, text](client, url+say, connect.WithCompressMinBytes(leastSize))
	return &plugin{name: name, host: o.host, client: c}, nil
}

type text = wrapperspb.StringValue

type plugin struct {
	name   string
	host   *connectplugin.Host
	client *connect.Client[text, text]
}

// Call implements side.Plugin.
func (p *plugin) Call(ctx context.Context, payload string) error {
	_, err := p.client.CallUnary(ctx, connect.NewRequest(wrapperspb.String(payload)))
	return err //nolint:wrapcheck // the side does
}

// Pid implements side.Plugin.
func (p *plugin) Pid() int {
	for _, s := range p.host.Plugins() {
		if s.Launch != nil && s.Launch.Name == p.name {
			return s.Launch.Pid
		}
	}
	return 0
}

// Stop implements side.Plugin.
func (p *plugin) Stop(ctx context.Context) error {
	if err := p.host.Launcher().Stop(ctx, p.name); err != nil && !errors.Is(err, connectplugin.ErrPluginNotRunning) {
		return err //nolint:wrapcheck // the side does
	}
	return nil
}
