package connectplugin

import (
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
)

// Waits grow with the time that an interruption has lasted, between bounds, and end with it.
func TestPace_GrowsAndEnds(t *testing.T) {
	t.Parallel()
	var p pace
	start := time.Unix(1e9, 0)
	p.lost(start, errHostLost)
	if w := p.wait(start); w < 0 || w >= paceLost {
		t.Errorf("after a loss: %s", w)
	}
	for _, lasted := range []time.Duration{0, time.Second, 10 * time.Second, time.Hour} {
		most := min(max(lasted/paceShare, paceLeast), paceMost)
		for range 100 {
			now := start.Add(lasted)
			p.failed(now, errHostLost)
			if w := p.wait(now); w < 0 || w >= most {
				t.Errorf("after %s: %s, want less than %s", lasted, w, most)
			}
		}
	}
	if !p.over() || p.over() || p.wait(start) > 0 {
		t.Error("the interruption did not end once")
	}
}

// What the host asks for is waited for, in either form; what is malformed is not.
func TestPace_WaitsAsLongAsTheHostAsks(t *testing.T) {
	t.Parallel()
	header := connect.NewError(connect.CodeResourceExhausted, errors.New("busy"))
	header.Meta().Set(headerRetryAfter, "7")
	now := time.Unix(1e9, 0)
	var p pace
	p.failed(now, header)
	if w := p.wait(now); w < 7*time.Second || w >= 7*time.Second+paceBusy {
		t.Errorf("Retry-After: %s", w)
	}
	duration := protowire.AppendVarint(protowire.AppendTag(nil, fieldSeconds, protowire.VarintType), 3)
	duration = protowire.AppendVarint(protowire.AppendTag(duration, fieldNanos, protowire.VarintType), 5)
	info := protowire.AppendBytes(protowire.AppendTag(nil, fieldRetryDelay, protowire.BytesType), duration)
	if d := retryDelay(info); d != 3*time.Second+5 {
		t.Errorf("RetryInfo: %s", d)
	}
	for n := range info {
		if d := retryDelay(info[:n]); d != 0 {
			t.Errorf("%d of %d bytes: %s", n, len(info), d)
		}
	}
}
