package broker_test

import (
	"context"
	"sync"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// servedNames counts the names of calls that the host served.
type servedNames struct {
	connectplugin.NopObserver

	mu    sync.Mutex
	names map[string]int
}

func (o *servedNames) CallServed(_ context.Context, call connectplugin.ServedCall) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.names[call.Procedure]++
}

func (o *servedNames) of(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.names[name]
}

// What an observer is told of calls of a capability has one name, however many grants there are:
// who obtains them would else grow what metrics keep.
func TestObserver_GrantsAreNoNames(t *testing.T) {
	t.Parallel()
	const calls, name = 70, "/capabilities/" + echo.Type + echo.Unary // more than there is room for names
	o := &servedNames{names: map[string]int{}}
	rig := newCapabilityRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) { c.Observer = o })
	owner := rig.Enrol(t, "both", nil)
	for range calls {
		grant := rig.mustGrant(t, owner, echo.Type)
		to := echo.At(rig.URL+"/capabilities/"+echo.Type+"/"+grant.GetGrantId(), rig.Stranger(t))
		echo.Want(t, "unary", echo.CallUnary(t.Context(), to, nil, bearerOf(grant)))
	}
	hosttest.Eventually(t, "every call has the one name", func() bool { return o.of(name) == calls })
}
