// Package kinds holds the attacks on a host that this repository knows. They are for hosts
// of one's own: nothing but a loopback address is attacked, for a short time, with a
// bounded number of frames.
package kinds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

const (
	// MostTime is how long one attack may take.
	MostTime = 3 * time.Minute

	mostFrames = 5_000_000
	hostName   = "127.0.0.1" // in its certificate
	from       = "127.0.0.2" // another address than the honest ones have
	dialLimit  = 5 * time.Second
)

var (
	errNotLoopback = errors.New("not a loopback address; attack none but hosts of your own")
	errGone        = errors.New("the host ended the connection")
	errEnough      = errors.New("enough frames were sent")
)

// Who attacks.
const (
	Stranger = "a stranger"
	Plugin   = "a bad plugin"
	Provider = "a hostile provider"
)

// Kind is one attack.
type Kind struct {
	Who  string
	Name string
	run  func(ctx context.Context, a *attack) error
}

// All returns every kind.
func All() []Kind {
	return slices.Concat(
		strangers(), nothings(), manies(), handshakeKinds(), recordKinds(), probeKinds(),
		plugins(), fleets(), wordyCalls(), ownProviders(), providers())
}

// Named returns the kinds whose names, with who attacks before them, contain a text in upper or lower case.
func Named(text string) []Kind {
	text = strings.ToLower(text)
	return slices.DeleteFunc(All(), func(k Kind) bool { return !strings.Contains(strings.ToLower(k.Who+": "+k.Name), text) })
}

// Outcome is what the attacker saw.
type Outcome struct {
	CutAfter time.Duration // when the first connection was ended by the host; zero for never
	Reason   string        // that the host gave for it
	Sent     int64         // frames, requests or connections
	Refused  int64         // requests that were answered with resource_exhausted, or reset
	Told     bool          // when to come back
}

// Play attacks the host at an address for a time.
func (k Kind) Play(ctx context.Context, authority *connectplugin.Authority, addr string, d time.Duration) (Outcome, error) {
	if err := loopback(addr); err != nil {
		return Outcome{}, err
	}
	a := &attack{authority: authority, addr: addr}
	defer a.close()
	if err := a.arm(ctx, k.Who); err != nil {
		return Outcome{}, err
	}
	a.begun = time.Now()
	ctx, cancel := context.WithTimeout(ctx, min(d, MostTime))
	defer cancel()
	err := k.run(ctx, a)
	if errors.Is(err, errGone) || errors.Is(err, errEnough) || ctx.Err() != nil {
		err = nil
	}
	return a.outcome(), err
}

func loopback(addr string) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil || !at.Addr().IsLoopback() {
		return fmt.Errorf("%s: %w", addr, errNotLoopback)
	}
	return nil
}

// attack is one attack under way.
type attack struct {
	// Fixed once the attack is armed.
	authority *connectplugin.Authority
	addr      string
	begun     time.Time
	tls       *tls.Config
	client    *connectplugin.Client // nil for a stranger
	relay     *relay                // between a plugin's client and the host, nil for others

	sent, refused atomic.Int64
	told          atomic.Bool

	mu     sync.Mutex
	cut    time.Duration
	reason string
}

// arm gets what the attacker has: nothing, or an identity.
func (a *attack) arm(ctx context.Context, who string) (err error) {
	name := map[string]string{Plugin: stage.Bad, Provider: stage.Hostile}[who]
	if name == "" {
		a.tls = a.authority.ClientTLS()
		return nil
	}
	if a.tls, err = a.authority.PluginTLS(name); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	cfg := connectplugin.ClientConfig{HostURL: "https://" + a.addr, SelfID: name, TLS: a.tls.Clone()}
	for _, t := range []string{stage.Echo, stage.Hostile, flooded} {
		cfg.Metadata.Requires = append(cfg.Metadata.Requires, connectplugin.ServiceDependency{Type: t})
	}
	provides := stage.Hostile
	if who == Plugin { // a provider comes from where it is
		provides = flooded
		if a.relay, err = a.relayed(); err != nil {
			return err
		}
		cfg.HostURL = "https://" + a.relay.addr()
	}
	cfg.Metadata.Provides = []connectplugin.ServiceDeclaration{{Type: provides, Version: firstVersion, Path: stage.Path}}
	if a.client, err = connectplugin.NewClient(cfg); err == nil {
		err = a.client.Connect(ctx)
	}
	if err != nil {
		return fmt.Errorf("attacker: %w", err)
	}
	return nil
}

func (a *attack) close() {
	if a.client != nil {
		_ = a.client.Close()
	}
	if a.relay != nil {
		a.relay.close()
	}
}

// dial opens a connection from the attacker's address.
func (a *attack) dial(ctx context.Context) (net.Conn, error) { return dial(ctx, a.addr) }

func dial(ctx context.Context, addr string) (net.Conn, error) { return dialFrom(ctx, from, addr) }

func dialFrom(ctx context.Context, from, addr string) (net.Conn, error) {
	if err := loopback(addr); err != nil {
		return nil, err
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: dialLimit}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return c, nil
}

// ended notes that the host ended a connection.
func (a *attack) ended(reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cut == 0 {
		a.cut, a.reason = time.Since(a.begun), reason
	}
}

func (a *attack) outcome() Outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Outcome{CutAfter: a.cut, Reason: a.reason, Sent: a.sent.Load(), Refused: a.refused.Load(), Told: a.told.Load()}
}
