package edge

import "github.com/masegraye/connect-plugin-go/internal/fullest"

// Fullest returns which address has most connections that proved nothing, and how many.
func (l *Listener) Fullest() (key string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fullest.Of(l.shares, func(s *share) int { return s.unproven })
}
