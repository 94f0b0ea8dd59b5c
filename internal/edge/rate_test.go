package edge_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// An address that opens connections faster than it may is refused, and one that has its
// connection keeps it.
func TestListener_NewConnectionsHaveARate(t *testing.T) {
	t.Parallel()
	const burst = 3
	s := start(t, func(c *edge.Config) { c.PerSecond, c.Burst = 1e-9, burst })
	kept := s.http(t)
	for i := range burst {
		c := s.http(t)
		if i == 0 {
			c = kept
		}
		if err := s.get(t.Context(), c, "/", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.get(t.Context(), s.http(t), "/", "x"); err == nil {
		t.Error("a connection beyond the rate is served")
	}
	if s.refused.Load() == 0 {
		t.Error("nobody was told of it")
	}
	if err := s.get(t.Context(), kept, "/", "still"); err != nil {
		t.Error(err)
	}
}
