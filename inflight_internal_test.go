package connectplugin

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"
)

func TestHold_AsksThePolicyThatIsThere(t *testing.T) {
	t.Parallel()
	h := newHub(&ServeConfig{})
	yes := compilePolicy(OpenPolicy())
	h.rules.Store(yes)
	allowed := func(b *ruleBook) bool { return b == yes }
	_, c := newCall(t.Context(), httptest.NewRecorder())
	release, ok := h.hold(c, allowed)
	if !ok || len(h.permitted.list()) != 1 {
		t.Fatal("an allowed call is not held")
	}
	release()
	h.rules.Store(compilePolicy(nil))
	if _, ok := h.hold(c, allowed); ok || len(h.permitted.list()) != 0 {
		t.Error("a call is held that policy stopped allowing before it began")
	}
	if release, ok := h.hold(nil, allowed); !ok {
		t.Error("the host's own doing is refused")
	} else {
		release()
	}
}

func TestCall_EndsItsContextAndLeavesAServedResponseAlone(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	ctx, c := newCall(t.Context(), nil) // whoever touches the response panics
	c.done()
	c.end(cause)
	if !errors.Is(context.Cause(ctx), context.Canceled) {
		t.Errorf("cause %v of a call that was served", context.Cause(ctx))
	}
	ctx, c = newCall(t.Context(), httptest.NewRecorder())
	c.end(cause)
	if !errors.Is(context.Cause(ctx), cause) {
		t.Errorf("cause %v", context.Cause(ctx))
	}
}
