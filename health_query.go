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
)

// maxHealthAnswer bounds the answer to a question, in bytes.
const maxHealthAnswer = 64 << 10

// probeHealth asks a plugin how it is, the way that routed calls take. An
// error says that it did not answer; a plugin that answers without saying how it
// is, because it does not know the question, is of unknown health.
func probeHealth(ctx context.Context, pool *proxy.Provider) (catalog.HealthReport, error) {
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
