package main

import (
	"errors"
	"fmt"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
)

var errFields = errors.New("-fields is insecure, open, secure or nothing")

// fill fills in the two fields that a host did not have before.
func fill(cfg *connectplugin.ServeConfig, fields string) error {
	switch fields {
	case "":
		return nil
	case "insecure": // one of the two, which is not enough
		cfg.AllowInsecure = true

		return nil
	case "open":
		//docs:region open
		cfg.AllowInsecure = true
		cfg.Policy = connectplugin.OpenPolicy()
		//docs:end
		return nil
	case "secure":
		return secure(cfg)
	default:
		return fmt.Errorf("%q: %w", fields, errFields)
	}
}

// secure is the second step: TLS, and what each plugin may do.
func secure(cfg *connectplugin.ServeConfig) error {
	authority, err := devhost.Authority("greeter", "client")
	if err != nil {
		return err
	}

	serverTLS, err := authority.HostTLS()
	if err != nil {
		return err
	}

	//docs:region secure
	cfg.TLS = serverTLS
	cfg.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"greeter": {
			Provides: []string{"greeter"}, AllowOwnAddress: true,
			Certificates: []string{authority.PluginIdentity("greeter")},
		},
		"client": {
			Requires: []string{"greeter"}, HostPlugins: []string{"kv"},
			Certificates: []string{authority.PluginIdentity("client")},
		},
	}}
	//docs:end

	return nil
}
