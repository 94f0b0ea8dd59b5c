package inflight_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/iotest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/inflight"
)

var errCause = errors.New("cause")

// deadlines is a response of which the deadlines are known.
type deadlines struct {
	http.ResponseWriter

	read, write time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = t; return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = t; return nil }

func newCall(t *testing.T) (context.Context, *inflight.Call, *deadlines) {
	t.Helper()
	w := &deadlines{ResponseWriter: httptest.NewRecorder()}
	ctx, c := inflight.New(t.Context(), w)
	return ctx, c, w
}

func TestCall_EndsItsContextAndCutsItsResponseOff(t *testing.T) {
	t.Parallel()
	ctx, c, w := newCall(t)
	c.End(errCause)
	if !errors.Is(context.Cause(ctx), errCause) {
		t.Errorf("cause %v", context.Cause(ctx))
	}
	if w.write.IsZero() || !w.read.IsZero() {
		t.Errorf("deadlines: write %v, read %v; the handler reads nothing", w.write, w.read)
	}
}

func TestCall_LeavesAServedResponseAlone(t *testing.T) {
	t.Parallel()
	ctx, c, w := newCall(t)
	c.Done()
	c.End(errCause)
	if !errors.Is(context.Cause(ctx), context.Canceled) {
		t.Errorf("cause %v of a call that was served", context.Cause(ctx))
	}
	if !w.write.IsZero() || !w.read.IsZero() {
		t.Error("the response of a call that was served was touched")
	}
}

func TestCall_WakesItsReaderAndSaysWhy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  bool
		body io.Reader
		want error
	}{
		"goes on, breaks": {false, iotest.ErrReader(io.ErrClosedPipe), io.ErrClosedPipe},
		"ended":           {true, iotest.ErrReader(io.ErrClosedPipe), errCause},
		"ended at its end": {
			true, iotest.ErrReader(io.EOF), io.EOF,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, c, w := newCall(t)
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", tt.body)
			r = c.WithBody(r, context.Cause)
			if tt.end {
				c.End(errCause)
			}
			if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, tt.want) {
				t.Errorf("read: %v, want %v", err, tt.want)
			}
			if tt.end == w.read.IsZero() {
				t.Errorf("read deadline %v, ended: %t", w.read, tt.end)
			}
		})
	}
}

// A call may have ended by the time that its body is asked for.
func TestCall_WakesItsReaderThatComesLate(t *testing.T) {
	t.Parallel()
	ctx, c, w := newCall(t)
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", iotest.ErrReader(io.ErrClosedPipe))
	c.End(errCause)
	r = c.WithBody(r, context.Cause)
	if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, errCause) || w.read.IsZero() {
		t.Errorf("read: %v; deadline %v", err, w.read)
	}
}

func TestSet_CutsOffWhatIsInIt(t *testing.T) {
	t.Parallel()
	var s inflight.Set
	_, in, inside := newCall(t)
	_, out, outside := newCall(t)
	s.Add(in)
	s.Add(out)
	s.Remove(out)
	s.CutOffSoon()
	if inside.write.IsZero() || !outside.write.IsZero() {
		t.Errorf("inside %v, outside %v", inside.write, outside.write)
	}
}

func TestPermits_AsksTheRuleThatIsThere(t *testing.T) {
	t.Parallel()
	var permits inflight.Permits[string]
	yes := func(rule string) bool { return rule == "yes" }
	ctx, c, _ := newCall(t)
	release, ok := permits.Admit(c, func() string { return "yes" }, yes)
	if !ok || permits.Len() != 1 {
		t.Fatal("an allowed call is not held")
	}
	if n := permits.Enforce("yes", errCause); n != 0 || ctx.Err() != nil {
		t.Errorf("%d calls ended that the rule allows, %v", n, ctx.Err())
	}
	if n := permits.Enforce("no", errCause); n != 1 || !errors.Is(context.Cause(ctx), errCause) {
		t.Errorf("%d calls ended, cause %v", n, context.Cause(ctx))
	}
	release()
	if n := permits.Enforce("no", errCause); n != 0 || permits.Len() != 0 {
		t.Errorf("%d calls ended that were released", n)
	}
	if _, ok := permits.Admit(c, func() string { return "no" }, yes); ok || permits.Len() != 0 {
		t.Error("a call is held that the rule does not allow")
	}
}

// A rule that changes while a call is admitted is asked, or the change finds the
// call: one of both.
func TestPermits_MissNoChange(t *testing.T) {
	t.Parallel()
	var permits inflight.Permits[bool]
	_, c, _ := newCall(t)
	ended := 0
	rule := func() bool {
		ended = permits.Enforce(false, errCause) // at the worst moment: just before the rule is read
		return true
	}
	release, ok := permits.Admit(c, rule, func(allowed bool) bool { return allowed })
	if !ok || ended != 1 {
		t.Errorf("admitted: %t, ended by the change: %d", ok, ended)
	}
	release()
}
