// Command host is a host that serves a key-value store of its own.
package main

import (
	"context"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
	"github.com/masegraye/connect-plugin-go/examples/kv/store"
)

func main() {
	devhost.Main(func(context.Context) error {
		return devhost.Serve(&connectplugin.ServeConfig{
			Plugins: connectplugin.PluginSet{kvv1plugin.KVServiceType: &kvv1plugin.KVServicePlugin{}},
			Impls:   map[string]any{kvv1plugin.KVServiceType: store.New()},
			Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
				"client": {HostPlugins: []string{kvv1plugin.KVServiceType}},
				"app":    {HostPlugins: []string{kvv1plugin.KVServiceType}},
			}},
		}, "client", "app")
	})
}
