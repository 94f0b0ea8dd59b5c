package headers

import (
	"strings"
	"testing"
)

// There is a bit for each letter of the reserved parts, and none of these has a character that names are spelled with in two ways.
func TestPartsFit(t *testing.T) {
	t.Parallel()
	all := strings.Join(reservedParts, "")
	if len(all) > 64 || strings.Trim(all, "abcdefghijklmnopqrstuvwxyz") != "" {
		t.Errorf("%q: %d letters, at most 64 small ones fit", all, len(all))
	}
	if longestKnown > spelledRoom {
		t.Errorf("a name has %d bytes, which is more than fit", longestKnown)
	}
}
