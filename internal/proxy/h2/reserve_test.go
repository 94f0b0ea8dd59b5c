package h2_test

import (
	"errors"
	"testing"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// A place that was reserved before the server lowered its limit is none any more.
func TestAudit_USE03_ReservedPlaceEndsWithTheLimit(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config(), http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
	if !c.Reserve() {
		t.Fatal("no place")
	}
	p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}))
	p.want(http2.FrameSettings)
	r := get
	r.Reserved = true
	if _, _, err := c.Open(r); !errors.Is(err, h2.ErrFull) {
		t.Errorf("a stream beyond the limit that was acknowledged: error %v", err)
	}
	if n := c.Load(); n != 0 {
		t.Errorf("load %d", n)
	}
}
