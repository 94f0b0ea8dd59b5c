package edge

import (
	"strings"

	"github.com/masegraye/connect-plugin-go/internal/fullest"
)

// Fullest returns which address has most connections that proved nothing, and how many.
func (l *Listener) Fullest() (key string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fullest.Of(l.shares, func(s *share) int { return s.unproven })
}

// FullestKin returns which kin has most connections of those whose names begin so, without that, and how many.
func (l *Listener) FullestKin(prefix string) (name string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kin := map[string]int{}
	for name, n := range l.held {
		if of, ok := strings.CutPrefix(name, prefix); ok {
			kin[of] = n
		}
	}
	return fullest.Count(kin)
}
