package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// probeEvery is short, so that the kit need not wait.
const probeEvery = time.Second

// serveHost is a host for the kit to test, on this library.
func serveHost(ctx context.Context) error {
	config, secret, err := ownHost()
	if err != nil {
		return err
	}
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Addr: os.Getenv(envAddr), TLS: config, ProtocolVersion: highestApp, MinProtocolVersion: lowestApp,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			selfProvider: {Secret: secret, Provides: []string{typeSubject}, AllowOwnAddress: true},
			selfCaller:   {Secret: secret, Requires: []string{typeSubject, typeNobody}},
		}},
		HealthProbe: connectplugin.HealthProbeConfig{Interval: probeEvery},
		Logger:      slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	if err := host.ListenAndServe(ctx); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// ownHost is what the environment says of the host.
func ownHost() (*tls.Config, []byte, error) {
	secret, err := hex.DecodeString(os.Getenv(envSecret))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", envSecret, err)
	}
	config, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: os.Getenv(envDir)})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", envDir, err)
	}
	config.VerifyConnection = nil // that of a plugin, whose only peer is its host
	return config, secret, nil
}
