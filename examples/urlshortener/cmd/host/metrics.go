package main

import (
	"context"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/metrics"
)

// newHost makes a host, with metrics where it is told an address for scrapes. Call end when it has
// served.
func newHost(config *connectplugin.ServeConfig) (host *connectplugin.Host, end func(), err error) {
	if config.MetricsAddr == "" {
		host, err = connectplugin.NewHost(config)

		return host, func() {}, err
	}

	observer, err := metrics.New()
	if err != nil {
		return nil, nil, err
	}

	config.Observer, config.Metrics = observer, observer.Handler()

	if host, err = connectplugin.NewHost(config); err == nil {
		_, err = observer.Host(host) // what the host holds, too
	}

	return host, func() { _ = observer.Shutdown(context.Background()) }, err
}

// operators are plugins that policy lets look at the host, and change it.
func operators(dir, policyFile string) *connectplugin.AdminConfig {
	return &connectplugin.AdminConfig{LoadPolicy: func(context.Context) (*connectplugin.Policy, error) {
		return loadPolicy(policyFile, dir)
	}}
}
