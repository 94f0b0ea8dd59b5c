package connectplugin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// report records how a provider did.
func (s *ServiceRouter) report(r *http.Request, call *routedCall, result proxy.Result) {
	c, reg := call.caller, call.target.reg
	logCall(r, c, reg, result)
	switch result.Class {
	case proxy.ClassOK:
		s.catalog.Report(reg.Type, reg.RuntimeID, true, result.Latency)
	case proxy.ClassUnavailable, proxy.ClassReset, proxy.ClassResponse, proxy.ClassIdle:
		if !errors.Is(result.Err, errUnhealthy) { // which the catalogue knows
			s.catalog.Report(reg.Type, reg.RuntimeID, false, result.Latency)
		}
		if c.hub.spend(callerBudget("failed:", c.id, c.hub.settings().limits.handshakeRate())) { // who calls again and again fills no log
			c.hub.log().Warn("a routed call failed", keyService, reg.Type, keyRuntimeID, reg.RuntimeID,
				keyReason, result.Class.String(), keyError, result.Err)
		}
	case proxy.ClassRefused:
		c.hub.auditCall(r.Context(), AuditDenied, r.URL.Path, reg.Type, result.Err.Error())
	case proxy.ClassCanceled:
	}
}

// answer answers a call that was not answered.
func answer(w http.ResponseWriter, r *http.Request, result proxy.Result) {
	if result.Written {
		return
	}
	w.Header().Set(headerCacheControl, noStore)
	if errors.Is(result.Err, proxy.ErrMethod) && r.Method != http.MethodGet {
		// No protocol of RPCs has a form for it.
		w.Header().Set("Allow", "GET, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	code, err := outcomeOf(r.Context(), result)
	refuse(w, r, code, err)
}

// logCall records a call that was passed on, for whoever looks at single calls.
func logCall(r *http.Request, c *caller, reg catalog.Registration, result proxy.Result) {
	log := c.hub.log()
	if !log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	log.LogAttrs(r.Context(), slog.LevelDebug, "routed call",
		slog.String(keyProcedure, r.URL.Path), slog.String(keyRuntimeID, c.id.RuntimeID()),
		slog.String(keyService, reg.Type), slog.String(keyProvider, reg.RuntimeID),
		slog.String(keyOutcome, result.Class.String()), slog.Int(keyStatus, result.Status),
		slog.Duration(keyLatency, result.Latency))
}

// ending states how a broken stream ends for the caller.
func ending(class proxy.Class, err error) (proxy.Status, bool) {
	code, text := classify(class, err)
	return proxy.Status{Code: uint32(code), Name: code.String(), Message: text.Error()}, true
}

func outcomeOf(ctx context.Context, result proxy.Result) (connect.Code, error) {
	if result.Class == proxy.ClassCanceled {
		return classify(result.Class, context.Cause(ctx))
	}
	return classify(result.Class, result.Err)
}

// classify says what the caller learns of a call that failed.
func classify(class proxy.Class, err error) (connect.Code, error) {
	switch class {
	case proxy.ClassRefused:
		return connect.CodeUnimplemented, errNotAvailable
	case proxy.ClassIdle:
		return connect.CodeDeadlineExceeded, errIdle
	case proxy.ClassCanceled:
		switch {
		case errors.Is(err, errIdentityEnded):
			return connect.CodeUnauthenticated, errIdentityEnded
		case errors.Is(err, errWithdrawn):
			return connect.CodeNotFound, errNotAvailable
		case errors.Is(err, errShuttingDown):
			return connect.CodeUnavailable, errShuttingDown
		case errors.Is(err, context.DeadlineExceeded):
			return connect.CodeDeadlineExceeded, context.DeadlineExceeded
		}
		return connect.CodeCanceled, context.Canceled
	case proxy.ClassOK, proxy.ClassUnavailable, proxy.ClassReset, proxy.ClassResponse:
	}
	return connect.CodeUnavailable, errNotAvailable
}
