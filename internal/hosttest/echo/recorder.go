package echo

import (
	"context"
	"net/http"
	"sync"
)

// Recorder records the requests that reach it and hands them on.
type Recorder struct {
	Next http.Handler // nil answers 200

	mu       sync.Mutex
	requests []*http.Request
}

func (s *Recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Clone(context.WithoutCancel(r.Context())))
	s.mu.Unlock()
	if s.Next != nil {
		s.Next.ServeHTTP(w, r)
	}
}

// Take returns what was recorded, and forgets it.
func (s *Recorder) Take() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.requests
	s.requests = nil
	return taken
}
