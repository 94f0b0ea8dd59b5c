package connectpluginotel

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// Prometheus is an [Observer] whose metrics Prometheus scrapes. Make it with [NewPrometheus].
type Prometheus struct {
	*Observer

	handler  http.Handler
	provider *sdkmetric.MeterProvider
}

// NewPrometheus makes an observer with a registry of its own: [Config].MeterProvider has to
// be nil. Its traces go to Config.TracerProvider, as those of [New]. Errors are those of New.
func NewPrometheus(cfg Config) (*Prometheus, error) {
	if cfg.MeterProvider != nil {
		return nil, fmt.Errorf("%w: MeterProvider: NewPrometheus makes its own; use New with one that has a Prometheus exporter", ErrConfig)
	}
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, fmt.Errorf("connectpluginotel: %w", err)
	}
	p := &Prometheus{provider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))}
	cfg.MeterProvider = p.provider
	if p.Observer, err = New(cfg); err != nil {
		return nil, err
	}
	p.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
	return p, nil
}

// maxScrapes is how many scrapes are answered at a time.
const maxScrapes = 4

// Handler answers scrapes, for connectplugin.ServeConfig.Metrics.
func (p *Prometheus) Handler() http.Handler { return p.handler }

// Shutdown ends the metrics. Call it when the host has ended.
func (p *Prometheus) Shutdown(ctx context.Context) error {
	if err := p.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("connectpluginotel: %w", err)
	}
	return nil
}
