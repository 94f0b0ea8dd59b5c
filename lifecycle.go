package connectplugin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// Bounds of a health report.
const (
	maxHealthReasonLen         = 1024
	maxUnavailableDependencies = 64
)

// PluginHealthState is what a plugin last reported about itself.
type PluginHealthState struct {
	// State is the reported state.
	State connectpluginv1.HealthState
	// Reason is the plugin's explanation; untrusted text.
	Reason string
	// UnavailableDependencies lists the service types that it misses.
	UnavailableDependencies []string
}

// LifecycleServer takes the health reports of plugins. It is safe for concurrent
// use.
type LifecycleServer struct {
	member

	catalog *catalog.Catalog // fixed at creation
}

// NewLifecycleServer makes a lifecycle server with a catalogue of its own, which
// a registry made with it shares.
func NewLifecycleServer() *LifecycleServer {
	return &LifecycleServer{catalog: catalog.New(catalogConfig(defaultLimits))}
}

// LifecycleServerHandler returns the path and the handler of the lifecycle
// service, for a server of your own. It serves authenticated callers of the host
// that the server belongs to.
func LifecycleServerHandler(server *LifecycleServer) (string, http.Handler) {
	path, h := connectpluginv1connect.NewPluginLifecycleHandler(server)
	return path, server.guard(unaryProcedure, h)
}

// ReportHealth records what the calling plugin says about itself. A state that
// the wire does not define, or text beyond its bounds, is InvalidArgument.
func (s *LifecycleServer) ReportHealth(ctx context.Context, req *connect.Request[connectpluginv1.ReportHealthRequest]) (*connect.Response[connectpluginv1.ReportHealthResponse], error) {
	c, runtimeID, err := s.caller(ctx, req.Spec(), req.Header())
	if err != nil {
		return nil, err
	}
	if err := s.spend(ctx, c, req.Spec().Procedure, ""); err != nil {
		return nil, err
	}
	if runtimeID == "" {
		return nil, errorf(connect.CodeInvalidArgument, "header %s is empty", headerRuntimeID)
	}
	if err := validateHealth(req.Msg); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	s.catalog.SetHealth(runtimeID, catalog.HealthReport{
		Health:      healthOf(req.Msg.GetState()),
		Reason:      req.Msg.GetReason(),
		Unavailable: slices.Clone(req.Msg.GetUnavailableDependencies()),
	})
	return connect.NewResponse(&connectpluginv1.ReportHealthResponse{}), nil
}

// GetHealthState returns what a plugin last reported, as a copy, and nil where
// it reported nothing or is gone.
func (s *LifecycleServer) GetHealthState(runtimeID string) *PluginHealthState {
	report, ok := s.catalog.Health(runtimeID)
	if !ok {
		return nil
	}
	return &PluginHealthState{
		State:                   wireHealth(report.Health),
		Reason:                  report.Reason,
		UnavailableDependencies: slices.Clone(report.Unavailable),
	}
}

// ShouldRouteTraffic reports whether calls may go to a plugin: to every one that
// did not report to be unhealthy.
func (s *LifecycleServer) ShouldRouteTraffic(runtimeID string) bool {
	report, ok := s.catalog.Health(runtimeID)
	return !ok || report.Health != catalog.HealthUnhealthy
}

func validateHealth(m *connectpluginv1.ReportHealthRequest) error {
	if healthOf(m.GetState()) == catalog.HealthUnknown {
		return fmt.Errorf("state: %d is not a health state", m.GetState())
	}
	if len(m.GetReason()) > maxHealthReasonLen {
		return fmt.Errorf("reason: has more than %d bytes", maxHealthReasonLen)
	}
	if strings.IndexFunc(m.GetReason(), unicode.IsControl) >= 0 {
		return fmt.Errorf("reason: has control characters")
	}
	if len(m.GetUnavailableDependencies()) > maxUnavailableDependencies {
		return fmt.Errorf("unavailable_dependencies: has more than %d entries", maxUnavailableDependencies)
	}
	for _, d := range m.GetUnavailableDependencies() {
		if err := ValidateServiceType(d); err != nil {
			return fmt.Errorf("unavailable_dependencies: %w", err)
		}
	}
	return nil
}

func healthOf(s connectpluginv1.HealthState) catalog.Health {
	switch s {
	case connectpluginv1.HealthState_HEALTH_STATE_HEALTHY:
		return catalog.HealthHealthy
	case connectpluginv1.HealthState_HEALTH_STATE_DEGRADED:
		return catalog.HealthDegraded
	case connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY:
		return catalog.HealthUnhealthy
	case connectpluginv1.HealthState_HEALTH_STATE_UNSPECIFIED:
	}
	return catalog.HealthUnknown
}

func wireHealth(h catalog.Health) connectpluginv1.HealthState {
	switch h {
	case catalog.HealthHealthy:
		return connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
	case catalog.HealthDegraded:
		return connectpluginv1.HealthState_HEALTH_STATE_DEGRADED
	case catalog.HealthUnhealthy:
		return connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY
	case catalog.HealthUnknown:
	}
	return connectpluginv1.HealthState_HEALTH_STATE_UNSPECIFIED
}
