package kinds

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// relay passes on what a client of the library connects to, from the attacker's address: what the
// host grants to an address is not to be taken from the honest ones.
type relay struct {
	listener net.Listener
	attack   *attack
	life     context.Context //nolint:containedctx // of its connections
	end      context.CancelFunc
	working  sync.WaitGroup
}

func (a *attack) relayed() (*relay, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &relay{listener: l, attack: a}
	r.life, r.end = context.WithCancel(context.Background())
	r.working.Go(r.accept)
	return r, nil
}

func (r *relay) addr() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.working.Go(func() { r.pass(c) })
	}
}

// pass copies both ways until one side ends.
func (r *relay) pass(from net.Conn) {
	defer func() { _ = from.Close() }()
	to, err := r.attack.dial(r.life)
	if err != nil {
		return
	}
	ended := context.AfterFunc(r.life, func() { _, _ = from.Close(), to.Close() })
	defer ended()
	r.working.Go(func() {
		_, _ = io.Copy(to, from)
		_, _ = from.Close(), to.Close()
	})
	_, _ = io.Copy(from, to)
	_ = to.Close()
}

// close ends the relay and its connections, and waits for them.
func (r *relay) close() {
	r.end()
	_ = r.listener.Close()
	r.working.Wait()
}
