package connectplugin

import (
	"context"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// setProber makes the host's prober.
func (h *Host) setProber() {
	h.prober = newProber(h.cfg.HealthProbe.withDefaults())
	h.prober.list = h.probeTargets
	h.prober.ask = func(ctx context.Context, id *tokenstore.Identity) (catalog.HealthReport, error) {
		p, err := h.router.providerAt(h.hub, id.RuntimeID())
		if err != nil {
			return catalog.HealthReport{}, err
		}
		return p.ask(ctx)
	}
	h.prober.tell = h.reportHealth
	h.prober.withdraw = func(id *tokenstore.Identity) { h.hub.store.Revoke(id.RuntimeID(), reasonSilent) }
}

// probeTargets returns the plugins that provide something.
func (h *Host) probeTargets() []probeTarget {
	var targets []probeTarget
	h.hub.store.Each(func(id *tokenstore.Identity) bool {
		endpoint, _ := h.registry.catalog.Endpoint(id.RuntimeID())
		report, reported := h.lifecycle.reported(id.RuntimeID())
		if (endpoint != "" || reported) && len(h.registry.catalog.ByRuntime(id.RuntimeID())) > 0 {
			targets = append(targets, probeTarget{id: id, askable: endpoint != "", reported: report.At})
		}
		return true
	})
	return targets
}

// reportHealth passes on what asking a plugin showed.
func (h *Host) reportHealth(id *tokenstore.Identity, report catalog.HealthReport) {
	log := h.cfg.Logger.Info
	if report.Health == catalog.HealthUnhealthy {
		log = h.cfg.Logger.Warn
	}
	log("a plugin's health, as the host sees it", keyRuntimeID, id.RuntimeID(),
		keyStatus, report.Health.String(), keyReason, printable(report.Reason))
	// An error says that the identity ended, which says it all.
	_ = h.lifecycle.take(id.RuntimeID(), id, func(v *healthView) { v.probed = report })
}
