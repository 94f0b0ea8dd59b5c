package connectpluginfx

import (
	"context"
	"fmt"
	"reflect"

	"go.uber.org/fx"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// ProvideTypedPlugin provides the client of one of the host's plugin services, as I: an
// interface such as kvv1connect.KVServiceClient, or another type that the plugin's
// ConnectClient returns. pluginName is its name in ClientConfig.Plugins of the
// [PluginModule] in the same application.
//
// A name that is not there and a client of another type are errors when the value is
// built; that the host does not offer the plugin is one when the application starts
// ([connectplugin.ErrPluginNotFound] both times). Calls work from then on; before, they
// fail with [connectplugin.ErrClientNotConnected].
//
// Where the configuration finds the host by Discovery, the client connects when the
// value is built, within ClientConfig.Timeout.
func ProvideTypedPlugin[I any](pluginName string) fx.Option {
	return fx.Provide(func(lc fx.Lifecycle, client *connectplugin.Client) (I, error) {
		typed, err := build[I](client, pluginName)
		if err != nil {
			return typed, fmt.Errorf("connectpluginfx: %w", err)
		}
		lc.Append(fx.Hook{OnStart: func(context.Context) error {
			if _, err := client.Dispense(pluginName); err != nil {
				return fmt.Errorf("connectpluginfx: %w", err)
			}
			return nil
		}})
		return typed, nil
	})
}

// build makes the plugin's client before there is a connection.
func build[I any](client *connectplugin.Client, name string) (I, error) {
	cfg := client.Config()
	if cfg.HostURL == "" {
		return discover[I](client, name)
	}
	var zero I
	plugin, ok := cfg.Plugins.Get(name)
	if !ok {
		return zero, fmt.Errorf("%w: %q is not in ClientConfig.Plugins", connectplugin.ErrPluginNotFound, name)
	}
	made, err := plugin.ConnectClient(cfg.HostURL, client.HTTPClient())
	if err != nil {
		return zero, fmt.Errorf("plugin %q: %w", name, err)
	}
	typed, ok := made.(I)
	if !ok {
		return zero, fmt.Errorf("plugin %q: client is a %T, not a %v", name, made, reflect.TypeFor[I]())
	}
	return typed, nil
}

// discover connects first: without a connection there is no URL to make a client of.
func discover[I any](client *connectplugin.Client, name string) (I, error) {
	ctx, cancel := context.WithTimeout(context.Background(), client.Config().Timeout)
	defer cancel()
	var zero I
	if err := connectUntil(ctx, client); err != nil {
		return zero, err
	}
	typed, err := connectplugin.DispenseTyped[I](client, name)
	if err != nil {
		return zero, fmt.Errorf("dispense: %w", err)
	}
	return typed, nil
}
