package observe_test

import (
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A call that an observer does nothing with takes no more allocations than one that nobody
// observes.
func TestObserver_NothingIsAllocated(t *testing.T) { //nolint:paralleltest // counts what the whole process allocates
	const runs = 200
	nobody, nothing := echo.NewMemoryCall(t, nil), echo.NewMemoryCall(t, connectplugin.NopObserver{})
	nobody()
	nothing() // the name of the procedure is learned once
	if without, with := testing.AllocsPerRun(runs, nobody), testing.AllocsPerRun(runs, nothing); with != without {
		t.Errorf("%v allocations a call, %v without an observer", with, without)
	}
}
