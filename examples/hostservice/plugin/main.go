// Command plugin calls the host's service under its self id: it stores a setting where a
// value is given, and prints it.
package main

import (
	"context"
	"flag"
	"fmt"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1delegate"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
)

const settings = kvv1plugin.KVServiceType // the key is the name that the plugin has

func main() { devhost.Main(run) }

func run(ctx context.Context) error {
	as := flag.String("as", "blue", "the self id")

	cfg, err := devhost.ClientConfig(as)
	if err != nil {
		return err
	}

	cfg.Plugins = connectplugin.PluginSet{settings: &kvv1plugin.KVServicePlugin{}}

	client, err := connectplugin.NewClient(cfg)
	if err != nil {
		return err
	}
	defer client.Leave(context.WithoutCancel(ctx)) //nolint:errcheck // the process ends

	if err := client.Connect(ctx); err != nil {
		return err
	}

	typed, err := connectplugin.DispenseTyped[kvv1connect.KVServiceClient](client, settings)
	if err != nil {
		return err
	}

	kv := kvv1delegate.New(typed)

	if value := flag.Arg(0); value != "" {
		if err := kv.Put(ctx, "colour", []byte(value)); err != nil {
			return err
		}
	}

	res, err := kv.Get(ctx, "colour")
	if err != nil {
		return err
	}

	fmt.Printf("%s\n", res.GetValue())

	return nil
}
