package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/protobuf/proto"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// setProber makes the host's prober.
func (h *Host) setProber() {
	h.prober = newProber(h.cfg.HealthProbe)
	h.prober.list = h.probeTargets
	h.prober.ask = func(ctx context.Context, id *tokenstore.Identity) (catalog.HealthReport, error) {
		p, err := h.router.providerAt(h.hub, id.RuntimeID())
		if err != nil {
			return catalog.HealthReport{}, err
		}
		return p.ask(ctx)
	}
	h.prober.tell = h.tellHealth
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

// tellHealth passes on what asking a plugin showed.
func (h *Host) tellHealth(id *tokenstore.Identity, report catalog.HealthReport) {
	log := h.cfg.Logger.Info
	if report.Health == catalog.HealthUnhealthy {
		log = h.cfg.Logger.Warn
	}
	log("a plugin's health, as the host sees it", keyRuntimeID, id.RuntimeID(),
		keyStatus, report.Health.String(), keyReason, printable(report.Reason))
	// An error says that the identity ended, which says it all.
	_ = h.lifecycle.take(id.RuntimeID(), id, func(v *healthView) { v.probed = report })
}

// maxHealthAnswer bounds the answer to a question, in bytes.
const maxHealthAnswer = 64 << 10

// askHealth asks a plugin how it is, the way that routed calls take. An
// error says that it did not answer; a plugin that answers without saying how it
// is, because it does not know the question, is of unknown health.
func askHealth(ctx context.Context, pool *proxy.Provider) (catalog.HealthReport, error) {
	const path = connectpluginv1connect.PluginControlGetHealthProcedure
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, path, http.NoBody)
	if err != nil {
		return catalog.HealthReport{}, fmt.Errorf("ask for health: %w", err)
	}
	req.Header.Set("Content-Type", "application/proto")
	req.Header.Set("Connect-Protocol-Version", "1")
	answer := &answerWriter{header: http.Header{}}
	result := pool.Forward(answer, req, proxy.Call{Path: path})
	answered := result.Class == proxy.ClassOK || result.Class == proxy.ClassResponse || errors.Is(result.Err, errAnswerTooLong)
	if !answered || result.Status == 0 {
		return catalog.HealthReport{}, fmt.Errorf("ask for health: %s: %w", result.Class, result.Err)
	}
	return healthAnswer(result.Status, answer.body)
}

var errServerError = errors.New("plugin answers with an error of its own")

// healthAnswer reads an answer. What is no valid statement says at least that the
// plugin is there.
func healthAnswer(status int, body []byte) (catalog.HealthReport, error) {
	unknown := catalog.HealthReport{}
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented {
		return unknown, fmt.Errorf("%w: status %d", errServerError, status)
	}
	var m connectpluginv1.GetHealthResponse
	valid := status == http.StatusOK && proto.Unmarshal(body, &m) == nil &&
		validateHealth(m.GetState(), m.GetReason(), m.GetUnavailableDependencies()) == nil
	if !valid {
		return unknown, nil
	}
	return catalog.HealthReport{
		Health: healthOf(m.GetState()), Reason: m.GetReason(), Unavailable: m.GetUnavailableDependencies(),
	}, nil
}

// answerWriter takes an answer into memory. It has the deadlines that the proxy
// sets, and needs none: the question's context ends it.
type answerWriter struct {
	header http.Header
	body   []byte
}

var errAnswerTooLong = errors.New("answer is too long")

// Header implements http.ResponseWriter.
func (w *answerWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *answerWriter) WriteHeader(int) {}

// Write implements http.ResponseWriter.
func (w *answerWriter) Write(p []byte) (int, error) {
	if len(w.body)+len(p) > maxHealthAnswer {
		return 0, errAnswerTooLong
	}
	w.body = append(w.body, p...)
	return len(p), nil
}

// FlushError does nothing, as http.ResponseController asks.
func (w *answerWriter) FlushError() error { return nil }

// SetReadDeadline does nothing: there is no body to read.
func (w *answerWriter) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: memory never blocks.
func (w *answerWriter) SetWriteDeadline(time.Time) error { return nil }
