package router_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A call to a provider in the host's process allocates what a request, its header and its
// answer are on either side, and little beside it.
func TestRouter_FewAllocationsInMemory(t *testing.T) { // not parallel: it counts what the whole process allocates
	const runs, most = 200, 24
	if n := testing.AllocsPerRun(runs, echo.NewMemoryCall(t, nil)); n > most {
		t.Errorf("%v allocations a call, at most %d are meant", n, most)
	} else {
		t.Logf("%v allocations a call", n)
	}
}
