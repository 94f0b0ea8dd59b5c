package certs

import (
	"runtime"
	"testing"
	"time"
)

// What nobody holds is forgotten.
func TestShared_Forgets(t *testing.T) {
	t.Parallel()

	var shared Shared

	ca, err := NewCA("example.test", ECDSA, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}

	if _, err := shared.Parse(ca.Certificate().Raw); err != nil {
		t.Fatal(err)
	}

	known := func() int {
		shared.mu.Lock()
		defer shared.mu.Unlock()

		return len(shared.known)
	}

	const patience = 10_000

	for range patience {
		if known() == 0 {
			return
		}

		runtime.GC()
		runtime.Gosched()
	}

	t.Error("it is remembered when nobody holds it")
}
