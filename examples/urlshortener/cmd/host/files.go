package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/cli"
)

func authorityConfig(dir string) connectplugin.AuthorityConfig {
	return connectplugin.AuthorityConfig{Dir: filepath.Join(dir, "authority"), TrustDomain: "urlshortener.example"}
}

func pluginDir(dir, name string) string { return filepath.Join(dir, "plugins", name) }

// enrol makes the authority unless it is there, and new certificates for plugins.
// A plugin that was enrolled before keeps its key and its secret.
func enrol(dir string, names []string) error {
	authority, err := connectplugin.LoadAuthority(authorityConfig(dir))
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = connectplugin.NewAuthority(authorityConfig(dir))
	}

	if err != nil {
		return err
	}

	for _, name := range names {
		if err := connectplugin.ValidateSelfID(name); err != nil {
			return err
		}

		if err := authority.WriteCredentials(pluginDir(dir, name), name); err != nil {
			return err
		}

		if err := cli.WriteSecret(pluginDir(dir, name)); err != nil {
			return err
		}
	}

	return nil
}

func loadAuthority(dir string) (*connectplugin.Authority, error) {
	authority, err := connectplugin.LoadAuthority(authorityConfig(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no authority in %s; make it, and credentials for plugins, with `host -dir %s enrol NAME...`: %w", dir, dir, err)
	}

	return authority, err
}

// loadPolicy reads the policy and the secrets of the plugins in it. No file is no
// policy.
func loadPolicy(path, dir string) (*connectplugin.Policy, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // no policy is a policy, and the host warns of it
	}

	data, err := os.ReadFile(path) //nolint:gosec // the path is the operator's
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}

	policy := &connectplugin.Policy{}

	in := json.NewDecoder(bytes.NewReader(data))
	in.DisallowUnknownFields()

	if err := in.Decode(policy); err != nil {
		return nil, fmt.Errorf("policy: %s: %w", path, err)
	}

	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("policy: %s: something follows the policy", path)
	}

	for name, plugin := range policy.Plugins {
		if plugin.Secret, err = cli.ReadSecret(pluginDir(dir, name)); err != nil {
			return nil, fmt.Errorf("policy: plugin %q has no secret; make one with `host -dir %s enrol %s`: %w", name, dir, name, err)
		}

		policy.Plugins[name] = plugin
	}

	if policy.Plugins == nil {
		policy.Plugins = map[string]connectplugin.PluginPolicy{}
	}
	// The host itself calls the logger. Its certificate proves who it is.
	policy.Plugins[hostSelfID] = connectplugin.PluginPolicy{Requires: []string{"logger"}}

	return policy, nil
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	var config net.ListenConfig

	listener, err := config.Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by another process; stop that, or choose another address with -addr "+
			"(port 0 is any free one): %w", addr, err)
	}

	return listener, err
}
