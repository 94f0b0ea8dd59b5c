package kinds

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	manyProtocols = 250 // that a large ClientHello offers
	protocolText  = 200 // bytes of each
)

// handshakeKinds are attacks with TLS handshakes that come to their end, and nothing else.
func handshakeKinds() []Kind {
	large := make([]string, manyProtocols)
	for i := range large {
		large[i] = fmt.Sprint(i, strings.Repeat("p", protocolText))
	}
	return []Kind{
		{Who: Stranger, Name: "TLS handshakes that are completed, from fifty addresses", run: completed(fifty, nil)},
		{Who: Stranger, Name: "TLS handshakes with large ClientHellos", run: completed(1, func(cfg *tls.Config) {
			cfg.NextProtos = append(cfg.NextProtos, large...)
		})},
	}
}

// completed makes TLS handshakes as fast as they go, from one of so many addresses after the other, and is gone then.
func completed(addresses uint32, edit func(*tls.Config)) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		cfg := a.tls.Clone()
		cfg.NextProtos, cfg.ServerName = []string{"h2"}, hostName
		if edit != nil {
			edit(cfg)
		}
		var working sync.WaitGroup
		var turn atomic.Uint32
		for range connecting {
			working.Go(func() {
				for ctx.Err() == nil && a.sent.Add(1) < mostFrames {
					if err := a.complete(ctx, fmt.Sprint("127.0.1.", firstOfFifty+turn.Add(1)%addresses), cfg); err != nil {
						a.refused.Add(1)
					}
				}
			})
		}
		working.Wait()
		return nil
	}
}

func (a *attack) complete(ctx context.Context, from string, cfg *tls.Config) error {
	raw, err := dialFrom(ctx, from, a.addr)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	return tls.Client(raw, cfg).HandshakeContext(ctx) //nolint:wrapcheck // only whether there is an error matters
}
