package certs

import (
	"crypto/x509"
	"testing"
	"time"
)

// Whatever a certificate's life is, it is renewed first, then the renewed one is shown, and only who failed to is warned of: with
// time for a second look before that.
func TestARenewedCertificateIsShownInTime(t *testing.T) {
	t.Parallel()

	for _, life := range []time.Duration{12 * time.Second, time.Minute, time.Hour, 24 * time.Hour, 14 * 24 * time.Hour} {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		leaf := &x509.Certificate{NotBefore: now.Add(-ClockSkew), NotAfter: now.Add(life)}

		var s Shown
		s.Note(leaf)

		shown := now.Add(s.Due(now))
		if renewed, warned := RenewAt(leaf), endingAt(leaf, false); !renewed.Before(shown) || !shown.Before(warned) {
			t.Errorf("%v: renewed at %v, shown at %v, warned of at %v", life, renewed.Sub(now), shown.Sub(now), warned.Sub(now))
		}

		if !s.Redial(shown) {
			t.Errorf("%v: it is not shown when it is due", life)
		}

		if again := shown.Add(s.Due(shown)); !again.After(shown) || !again.Before(endingAt(leaf, false)) {
			t.Errorf("%v: the next look is %v before the warning", life, endingAt(leaf, false).Sub(again))
		}
	}
}
