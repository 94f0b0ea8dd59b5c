package certs_test

import (
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// A connection ends a set time after its certificate, unless its identity showed a later
// one meanwhile.
func TestAudit_ATK08_AConnectionEndsSoonAfterItsCertificate(t *testing.T) {
	t.Parallel()

	end := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	hour := time.Hour

	for name, test := range map[string]struct {
		overtime        time.Duration
		notAfter, shown time.Time
		now             time.Time
		over            bool
	}{
		"in its time":                 {hour, end, time.Time{}, end, false},
		"in the overtime":             {hour, end, time.Time{}, end.Add(hour), false},
		"after it":                    {hour, end, time.Time{}, end.Add(hour + 1), true},
		"no overtime":                 {0, end, time.Time{}, end.Add(1), true},
		"a negative one is none":      {-hour, end, time.Time{}, end, false},
		"a later one was shown":       {hour, end, end.Add(24 * hour), end.Add(25 * hour), false},
		"that one is over, too":       {hour, end, end.Add(24 * hour), end.Add(25*hour + 1), true},
		"an earlier one was shown":    {hour, end, end.Add(-24 * hour), end.Add(hour), false},
		"no certificate":              {hour, time.Time{}, time.Time{}, end.Add(1000 * hour), false},
		"none here, another one late": {0, time.Time{}, end, end.Add(1), false},
	} {
		tenure := certs.Tenure{Overtime: test.overtime}
		if got := tenure.Over(test.notAfter, test.shown, test.now); got != test.over {
			t.Errorf("%s: over %t, it ends at %s", name, got, tenure.EndsAt(test.notAfter, test.shown))
		}
	}
}
