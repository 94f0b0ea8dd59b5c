package certs_test

import (
	"crypto"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

func TestRenewer(t *testing.T) {
	t.Parallel()

	now := time.Now().Truncate(time.Second)
	ca := newCA(t, certs.ECDSA, 30*time.Hour, now)

	renewer, err := certs.NewRenewer(ca, newRequest(t, pluginID("a"), 24*time.Hour), now)
	if err != nil {
		t.Fatal(err)
	}

	at := func(age time.Duration) *certs.Pin { return pinAt(t, renewer, now.Add(age)) }
	serial := func(age time.Duration) string {
		cert, err := renewer.Certificate(now.Add(age))
		if err != nil {
			t.Fatalf("after %s: %v", age, err)
		}

		return cert.Leaf.SerialNumber.String()
	}

	first, key := serial(0), at(0)
	if serial(16*time.Hour-time.Second) != first {
		t.Error("renewed before two thirds of its life")
	}

	if got := renewer.RenewAt(); !got.Equal(now.Add(16 * time.Hour)) {
		t.Errorf("RenewAt %s, want %s", got, now.Add(16*time.Hour))
	}

	second := serial(16 * time.Hour)
	if second == first {
		t.Error("not renewed after two thirds of its life")
	}

	if *at(17 * time.Hour) != *key {
		t.Error("the key changed")
	}

	// The second ends with the authority, so that a third could last no longer.
	if serial(29*time.Hour) != second {
		t.Error("renewed without getting a later certificate")
	}

	if _, err := renewer.Certificate(now.Add(31 * time.Hour)); !errors.Is(err, certs.ErrCA) {
		t.Errorf("after the authority's end: %v, want ErrCA", err)
	}
}

func pinAt(t *testing.T, renewer *certs.Renewer, now time.Time) *certs.Pin {
	t.Helper()

	cert, err := renewer.Certificate(now)
	if err != nil {
		t.Fatal(err)
	}

	pin := certs.PinOf(cert.Leaf)

	return &pin
}

// waitingKey is a key whose every use from the second on waits for the others.
type waitingKey struct {
	crypto.Signer

	uses   atomic.Int32
	others func()
}

// Public is what issuing a certificate asks for, once each.
func (k *waitingKey) Public() crypto.PublicKey {
	if k.uses.Add(1) > 1 {
		k.others()
	}

	return k.Signer.Public()
}

// Whoever comes at the moment of renewal gets the same new certificate.
func TestRenewerRenewsOnce(t *testing.T) {
	t.Parallel()

	const callers = 32

	now := time.Now()
	ca := newCA(t, certs.ECDSA, time.Hour, now)
	request := newRequest(t, pluginID("a"), 3*time.Minute)

	var (
		group   sync.WaitGroup
		arrived atomic.Int32
	)

	key := &waitingKey{Signer: request.Key, others: func() {
		for arrived.Load() < callers {
			runtime.Gosched()
		}
	}}
	request.Key = key

	renewer, err := certs.NewRenewer(ca, request, now)
	if err != nil {
		t.Fatal(err)
	}

	serials := make([]string, callers)

	for i := range callers {
		group.Go(func() {
			arrived.Add(1)

			cert, err := renewer.Certificate(now.Add(2 * time.Minute))
			if err != nil {
				t.Error(err)

				return
			}

			serials[i] = cert.Leaf.SerialNumber.String()
		})
	}

	group.Wait()

	if n := key.uses.Load(); n != 2 || len(slices.Compact(serials)) != 1 {
		t.Errorf("%d certificates were issued for %v, want 2", n, serials)
	}
}

// A certificate that was made while the clock was ahead begins later: who asks for it once the
// clock is right gets another, once, also where none could end later.
func TestRenewerWhereTheClockIsSetBack(t *testing.T) {
	t.Parallel()

	now := time.Now().Truncate(time.Second)
	ca := newCA(t, certs.ECDSA, 80*time.Hour, now)

	renewer, err := certs.NewRenewer(ca, newRequest(t, pluginID("a"), 24*time.Hour), now)
	if err != nil {
		t.Fatal(err)
	}

	for _, ahead := range []time.Duration{70 * time.Hour, certs.ClockSkew + time.Second} {
		if _, err := renewer.Certificate(now.Add(ahead)); err != nil {
			t.Fatal(err)
		}
	}

	cert, err := renewer.Certificate(now)
	if err != nil || cert.Leaf.NotBefore.After(now) || certs.Due(cert.Leaf, now) {
		t.Fatalf("begins at %v, and it is %v: %v", cert.Leaf.NotBefore, now, err)
	}

	if again, err := renewer.Certificate(now); again != cert || err != nil {
		t.Errorf("another one each time: %v", err)
	}

	if wait := certs.Wait(cert.Leaf, now); wait != time.Minute {
		t.Errorf("nobody looks for %v", wait)
	}

	if wait := certs.Wait(cert.Leaf, now.Add(-time.Hour)); wait != 0 {
		t.Errorf("it is due in %v where the clock is set back", wait)
	}
}
