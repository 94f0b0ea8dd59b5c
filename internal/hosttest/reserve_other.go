//go:build !linux

package hosttest

import (
	"net"
	"os"
	"strconv"
	"sync/atomic"
)

// Ports that systems other than Linux do not give to those who ask for any: they give those from 49152.
const (
	firstPort = 20_000
	ports     = 12_000
)

// taken counts the ports that were tried. Processes of tests that run at once begin apart.
var taken atomic.Uint32

// reserve names a port of loopback that the system gives to nobody.
func reserve() (addr string, release func(), err error) {
	port := firstPort + (uint32(os.Getpid())*127+taken.Add(1))%ports //nolint:gosec // any number serves
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), func() {}, nil
}
