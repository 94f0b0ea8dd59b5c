package h2

import (
	"net"
	"syscall"
	"time"
)

const (
	probesUnanswered = 3 // after which a machine is taken to be gone
	leastProbe       = time.Second
)

// WatchPeer has the kernel find out whether the other machine is still there. It
// may ask as often as it likes, unlike a ping of HTTP/2. Connections that are not
// TCP's own are left as they are.
func WatchPeer(conn net.Conn, interval, timeout time.Duration) {
	if tuned, ok := conn.(interface {
		SetKeepAliveConfig(cfg net.KeepAliveConfig) error
	}); ok {
		_ = tuned.SetKeepAliveConfig(net.KeepAliveConfig{ // a wish: pings find out later
			Enable:   true,
			Idle:     max(leastProbe, interval),
			Interval: max(leastProbe, timeout/probesUnanswered),
			Count:    probesUnanswered,
		})
	}
	if raw, ok := conn.(syscall.Conn); ok {
		limitUnacknowledged(raw, interval+timeout)
	}
}
