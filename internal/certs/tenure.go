package certs

import "time"

// Tenure is how long a connection may stand whose peer showed a certificate. The zero
// value gives it no overtime.
type Tenure struct {
	// Overtime is how long a connection outlives its certificate. Zero means not at all.
	Overtime time.Duration
}

// EndsAt returns when a connection ends that was opened with a certificate until
// notAfter, by an identity that has shown certificates until shown on any of its
// connections, zero for none. A zero notAfter is a connection without a certificate,
// which has no end; the result is zero then.
//
// So a plugin that renews its certificate and shows it anywhere keeps the streams that
// it has, and whoever lost the right to a certificate loses them soon after.
func (t Tenure) EndsAt(notAfter, shown time.Time) time.Time {
	if notAfter.IsZero() {
		return time.Time{}
	}

	if shown.After(notAfter) {
		notAfter = shown
	}

	return notAfter.Add(max(0, t.Overtime))
}

// Over reports whether such a connection has ended at a time.
func (t Tenure) Over(notAfter, shown, now time.Time) bool {
	end := t.EndsAt(notAfter, shown)

	return !end.IsZero() && now.After(end)
}
