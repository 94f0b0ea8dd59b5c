package certs_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// Of the same bytes there is one certificate while somebody holds it, whatever becomes of the bytes,
// and what is none is refused.
func TestShared(t *testing.T) {
	t.Parallel()

	var shared certs.Shared

	raw := append([]byte(nil), newCA(t, certs.ECDSA, time.Hour, time.Now()).Certificate().Raw...)

	first, err := shared.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}

	again, err := shared.Parse(append([]byte(nil), raw...))
	if err != nil || again != first {
		t.Errorf("%v, %v: another one of the same bytes", again, err)
	}

	other, err := shared.Parse(newCA(t, certs.ECDSA, time.Hour, time.Now()).Certificate().Raw)
	if err != nil || other == first {
		t.Errorf("%v: the same one of other bytes", err)
	}

	for i := range raw {
		raw[i] = 0
	}

	if first.Raw[0] == 0 {
		t.Error("it shares memory with what it was parsed from")
	}

	if _, err := shared.Parse(raw); err == nil {
		t.Error("nonsense is a certificate")
	}

	runtime.KeepAlive(other)
}
