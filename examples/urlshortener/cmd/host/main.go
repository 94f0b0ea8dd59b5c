// Command host is the host of the example.
//
//	host enrol NAME...   makes an authority, and credentials for plugins
//	host                 serves them
//	host check           ends well where the host on this machine is ready
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/cli"
)

const (
	// probeInterval is how often the host asks plugins how they are. One that died
	// without a word is found out after three questions.
	probeInterval = time.Second
	// tokenTTL is how long the identity of a program lives on that is gone, as a
	// command is at once. The living renew theirs.
	tokenTTL = time.Minute
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8443", "`address` to listen on; port 0 is any free one")
	dir := flag.String("dir", ".", "`directory` of the authority and of the plugins' credentials")
	hosts := flag.String("hosts", "", "`names` by which plugins reach the host, with commas between; the first is its own; empty is loopback")
	health := flag.String("health", "", "`address` on which probes are answered in plaintext; empty is nowhere")
	metrics := flag.String("metrics", "", "`address` on which scrapes of Prometheus are answered in plaintext; empty is nowhere")
	policy := flag.String("policy", "", "JSON `file` that says what plugins may do; without it none is accepted")
	flag.Parse()

	cli.Main(func(ctx context.Context) error {
		switch {
		case flag.NArg() == 0:
			config := &connectplugin.ServeConfig{Addr: *addr, HealthAddr: *health, MetricsAddr: *metrics, Hosts: names(*hosts)}
			config.HealthProbe, config.RuntimeTokenTTL = connectplugin.HealthProbeConfig{Interval: probeInterval}, tokenTTL
			config.GracefulShutdownTimeout, config.Admin = urlshortener.ShutdownGrace, operators(*dir, *policy)

			return serve(ctx, config, *dir, *policy)
		case flag.Arg(0) == "check" && flag.NArg() == 1:
			return check(ctx, *health, *addr, *dir)
		case flag.Arg(0) == "enrol" && flag.NArg() > 1:
			return enrol(*dir, flag.Args()[1:])
		default:
			return errors.New("write `host [flags] enrol NAME...`, `host [flags] check`, or `host [flags]` to serve")
		}
	})
}

func serve(ctx context.Context, config *connectplugin.ServeConfig, dir, policyFile string) error {
	log := cli.Logger()

	authority, err := loadAuthority(dir)
	if err != nil {
		return err
	}

	policy, err := loadPolicy(policyFile, dir)
	if err != nil {
		return err
	}

	listener, err := listen(ctx, config.Addr)
	if err != nil {
		return err
	}
	defer listener.Close() //nolint:errcheck // Serve closes it; this is for the errors before

	url := ownURL(listener.Addr().String(), config.Hosts)

	entries, err := newLogCapability(url, authority, log)
	if err != nil {
		return err
	}
	defer entries.Close()

	config.Authority, config.Policy, config.CapabilityBroker, config.Logger = authority, policy, brokerOf(entries), log

	host, end, err := newHost(config)
	if err != nil {
		return err
	}
	defer end()
	fmt.Println("listening on", url)

	if policy != nil {
		entries.Connect(ctx)
	}

	return host.Serve(ctx, listener)
}

func brokerOf(capability connectplugin.CapabilityHandler) *connectplugin.CapabilityBroker {
	broker := connectplugin.NewCapabilityBroker("")
	broker.RegisterCapability(capability)

	return broker
}
