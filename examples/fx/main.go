// Command fx is an application built with go.uber.org/fx that uses the key-value store
// of the host in examples/kv.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"go.uber.org/fx"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginfx"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1delegate"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
)

func main() {
	wait := flag.Duration("wait", 15*time.Second, "how long to wait for the host") //nolint:mnd // as long as fx would

	cfg, err := devhost.ClientConfig(new("app"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}

	//docs:region app
	cfg.Plugins = connectplugin.PluginSet{kvv1plugin.KVServiceType: &kvv1plugin.KVServicePlugin{}}

	fx.New(
		fx.NopLogger,
		fx.StartTimeout(*wait),
		connectpluginfx.PluginModule(cfg),
		connectpluginfx.ProvideTypedPlugin[kvv1connect.KVServiceClient](kvv1plugin.KVServiceType),
		fx.Provide(kvv1delegate.New), // the plain interface, of the client
		fx.Invoke(count),
	).Run()
	//docs:end
}

// count counts the starts of the application.
func count(lc fx.Lifecycle, kv kvv1delegate.KVService, shutdown fx.Shutdowner) {
	lc.Append(fx.StartHook(func(ctx context.Context) error {
		if err := kv.Put(ctx, "start/"+time.Now().Format(time.RFC3339Nano), nil); err != nil {
			return err
		}

		n := 0

		for _, err := range kv.List(ctx, "start/") {
			if err != nil {
				return err
			}

			n++
		}

		fmt.Println("start", n)

		return shutdown.Shutdown()
	}))
}
