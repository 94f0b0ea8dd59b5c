package kinds

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/bench/stage"
)

const (
	probing      = 100 // connections at once
	probesAtOnce = 64  // requests, or frames, in one piece
	probeFields  = 900
	probeRest    = 8 << 10 // bytes of answers that are read at once
)

// plain is an address that a host serves in plaintext.
type plain struct {
	name, path string
	of         func(addr string) string
}

// probeKinds are attacks on the addresses for probes and for scrapes, and connections to the host's own that say nothing.
func probeKinds() (all []Kind) {
	own := plain{of: func(addr string) string { return addr }}
	all = append(all, Kind{Who: Stranger, Name: "connections that are closed again", run: own.asked(nil, nil)})
	for _, at := range []plain{
		{"the address for probes", "/healthz", stage.ProbesOf},
		{"the address for scrapes", "/metrics", stage.ScrapesOf},
	} {
		head := "GET " + at.path + " HTTP/1.1\r\nHost: x\r\n"
		long := head + strings.Repeat("a:\r\n", probeFields)
		all = append(all,
			Kind{Who: Stranger, Name: at.name + ": requests", run: at.asked(nil, []byte(head+"\r\n"))},
			Kind{Who: Stranger, Name: at.name + ": heads of many fields", run: at.asked(nil, []byte(long+"\r\n"))},
			Kind{Who: Stranger, Name: at.name + ": PINGs", run: at.asked(hello(), ping())},
			Kind{Who: Stranger, Name: at.name + ": connections", run: at.asked(nil, nil)},
			Kind{Who: Stranger, Name: at.name + ": idle sockets", run: at.idle},
		)
	}
	return all
}

// hello is how HTTP/2 begins.
func hello() []byte {
	b := bytes.NewBufferString(http2.ClientPreface)
	_ = http2.NewFramer(b, nil).WriteSettings()
	return b.Bytes()
}

func ping() []byte {
	var b bytes.Buffer
	_ = http2.NewFramer(&b, nil).WritePing(false, [8]byte{})
	return b.Bytes()
}

// asked writes the same again and again on many connections, each begun anew when it is ended.
func (at plain) asked(first, again []byte) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		var working sync.WaitGroup
		for range probing {
			working.Go(func() {
				for ctx.Err() == nil {
					if a.ask(ctx, at.of(a.addr), first, bytes.Repeat(again, probesAtOnce)) != nil {
						return
					}
				}
			})
		}
		working.Wait()
		return nil
	}
}

// ask is one connection of asked.
func (a *attack) ask(ctx context.Context, addr string, first, again []byte) error {
	c, err := dial(ctx, addr)
	if err != nil {
		rest(ctx)
		return nil // it comes too fast, and goes on
	}
	if tcp, ok := c.(*net.TCPConn); ok && len(again) == 0 {
		_ = tcp.SetLinger(0) // or the system has no ports left that are not in TIME-WAIT
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	defer func() { _ = c.Close() }()
	var reading sync.WaitGroup
	defer reading.Wait()
	defer func() { _ = c.Close() }()
	reading.Go(func() {
		var err error
		for p := make([]byte, probeRest); err == nil; {
			var n int
			n, err = c.Read(p)
			if bytes.Contains(p[:n], []byte(" 429 ")) {
				a.refused.Add(1)
			}
		}
		if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			a.ended("")
		}
	})
	for p := append(bytes.Clone(first), again...); a.sent.Add(1) < mostFrames; p = again {
		if _, err := c.Write(p); err != nil || len(again) == 0 {
			return nil // it was ended
		}
	}
	return errEnough
}

// idle holds sockets that ask nothing, and comes again with each that was ended.
func (at plain) idle(ctx context.Context, a *attack) error {
	var working sync.WaitGroup
	for range probing {
		working.Go(func() {
			for ctx.Err() == nil && a.sent.Add(1) < mostFrames {
				c, err := dial(ctx, at.of(a.addr))
				if err != nil {
					rest(ctx)
					continue
				}
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				_, _ = c.Read(make([]byte, 1))
				if ctx.Err() == nil {
					a.ended("")
				}
				stop()
				_ = c.Close()
				pause(ctx, time.Millisecond)
			}
		})
	}
	working.Wait()
	return nil
}
