package launches_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/launches"
)

// A plugin is where the host has it listen, and says nothing else.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		at, says string
		refused  bool
	}{
		{"", "https://127.0.0.1:1", false},
		{"127.0.0.1:1", "https://127.0.0.1:1", false},
		{"127.0.0.1:1", "https://127.0.0.1:1/path", false},
		{"127.0.0.1:1", "https://127.0.0.1:2", true},
		{"127.0.0.1:1", "https://localhost:1", true},
		{"127.0.0.1:1", "https://127.0.0.1:1@other:1", true},
		{"127.0.0.1:1", "127.0.0.1:1", true},
		{launches.AtSocket, "https://127.0.0.1:1", true},
		{launches.AtSocket, "unix:/tmp/x", true},
	} {
		l := launches.New("identity", "a", nil)
		l.At = tt.at
		if err := l.Elsewhere(tt.says); (err != nil) != tt.refused {
			t.Errorf("at %q, says %q: %v", tt.at, tt.says, err)
		}
	}
}
