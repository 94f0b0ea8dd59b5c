// Package metrics is what the hosts of the example measure, and how the demo reads it.
package metrics

import (
	"fmt"

	"github.com/masegraye/connect-plugin-go/connectpluginotel"
)

// bounds of latencies, in seconds: calls between processes of one machine take about a millisecond.
var bounds = []float64{0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

// New makes an observer whose metrics Prometheus scrapes.
func New() (*connectpluginotel.Prometheus, error) {
	observer, err := connectpluginotel.NewPrometheus(connectpluginotel.Config{Buckets: bounds})
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}

	return observer, nil
}
