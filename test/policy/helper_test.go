package policy_test

import (
	"net"
)

// unspecified is a listener that names no address of its own.
type unspecified struct{ net.Listener }

func (l unspecified) Addr() net.Addr {
	_, port, _ := net.SplitHostPort(l.Listener.Addr().String())
	addr, _ := net.ResolveTCPAddr("tcp", "0.0.0.0:"+port)
	return addr
}
