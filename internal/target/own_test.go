package target_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/target"
)

func TestLeadsTo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		listener, host, port string
		want                 bool
	}{
		{"127.0.0.1:8443", "127.0.0.1", "8443", true},
		{"127.0.0.1:8443", "localhost", "8443", true},
		{"127.0.0.1:8443", "LocalHost.", "8443", true},
		{"127.0.0.1:8443", "::ffff:127.0.0.1", "8443", true},
		{"[::ffff:127.0.0.1]:8443", "127.0.0.1", "8443", true},
		{"[::1]:8443", "::1", "8443", true},
		{"[::1]:8443", "localhost", "8443", true},
		{"0.0.0.0:8443", "127.0.0.1", "8443", true},
		{"0.0.0.0:8443", "127.0.0.2", "8443", true},
		{"0.0.0.0:8443", "localhost", "8443", true},
		{"[::]:8443", "127.0.0.1", "8443", true},
		{"[::]:8443", "::1", "8443", true},
		{"127.0.0.1:8443", "127.0.0.1", "8444", false},
		{"127.0.0.1:8443", "127.0.0.2", "8443", false},
		{"127.0.0.1:8443", "::1", "8443", false},
		{"0.0.0.0:8443", "::1", "8443", false},
		{"127.0.0.2:8443", "localhost", "8443", false},
		{"10.0.0.7:8443", "localhost", "8443", false},
		{"0.0.0.0:8443", "192.0.2.1", "8443", false}, // of another machine
		{"[::]:8443", "2001:db8::1", "8443", false},
		{"0.0.0.0:8443", "host.example", "8443", false},
		{"/run/host.sock", "127.0.0.1", "8443", false},
		{"", "", "", false},
	} {
		if got := target.LeadsTo(tt.listener, tt.host, tt.port); got != tt.want {
			t.Errorf("%s:%s, where one listens on %s: %t", tt.host, tt.port, tt.listener, got)
		}
	}
}

// Every address of this machine is that of who listens on all of them.
func TestLeadsToAnInterface(t *testing.T) {
	t.Parallel()
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Skip(err)
	}
	for _, a := range own {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && !target.LeadsTo("[::]:8443", prefix.Addr().String(), "8443") {
			t.Errorf("%s is not", a)
		}
	}
}
