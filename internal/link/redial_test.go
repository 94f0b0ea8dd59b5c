package link_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// Requests in a loop to who accepts connections and serves nobody dial less and less often; once there is a server again
// it is found at once, and attempts that are far apart wait for nothing.
func TestAudit_ATK07_RequestsInALoopDialWithGrowingWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dials, serves := 0, false
		p := newPool(t, func(_ context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
			if dials++; !serves {
				time.Sleep(time.Millisecond)
				return nil, errors.New("the connection ended during the TLS handshake")
			}
			near, far := net.Pipe()
			go play(far, true, true, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
			return below(near), nil
		}, 4, nil)
		ask := func() (time.Duration, error) {
			begun := time.Now()
			_, err := get(t.Context(), p, "http://host.example/")
			return time.Since(begun), err
		}
		for begun := time.Now(); time.Since(begun) < 10*time.Second; {
			if took, err := ask(); err == nil || took > 300*time.Millisecond {
				t.Fatalf("after %v: %v", took, err)
			}
		}
		if dials > 100 {
			t.Errorf("%d attempts in 10 s", dials)
		}
		time.Sleep(time.Second)
		if took, err := ask(); err == nil || took > 2*time.Millisecond {
			t.Errorf("an attempt after a while took %v: %v", took, err)
		}
		serves = true
		if took, err := ask(); err != nil || took > 300*time.Millisecond {
			t.Errorf("a server that is back is found after %v: %v", took, err)
		}
		p.Close()
	})
}
