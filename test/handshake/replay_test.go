package handshake_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// encodings are the ways in which a handshake can be written.
var encodings = map[string][]connect.ClientOption{
	"connect": nil, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()}, "json": {connect.WithProtoJSON()},
}

// A handshake that was accepted once is refused ever after: on its connection, on
// another, in another protocol.
func TestAudit_PROTO33_CapturedHandshakesAreRefused(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	for name, bound := range map[string]bool{"bound": true, "unbound": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			victim, thief := wire.Dial(t, host), wire.Dial(t, host)
			sign := func(c *wire.Conn) *connectpluginv1.HandshakeRequest {
				if bound {
					return wire.Prove(t, wire.FreshRequest("api"), hosttest.Secret, c.Binding)
				}
				return wire.Prove(t, wire.FreshRequest("api"), hosttest.Secret, nil)
			}
			captured := sign(victim)
			hosttest.WantCode(t, "the honest handshake", victim.Handshake(t, captured), 0)
			for protocol, opts := range encodings {
				hosttest.WantCode(t, "again on its connection over "+protocol, victim.Handshake(t, captured, opts...), connect.CodeUnauthenticated)
				hosttest.WantCode(t, "on another connection over "+protocol, thief.Handshake(t, captured, opts...), connect.CodeUnauthenticated)
				hosttest.WantCode(t, "a new handshake over "+protocol, victim.Handshake(t, sign(victim), opts...), 0)
			}
			// Another's nonce, even the same, is nobody's business.
			other := sign(victim)
			other.SelfId, other.ClientNonce = "logger", captured.GetClientNonce()
			if bound {
				wire.Prove(t, other, hosttest.Secret, victim.Binding)
			} else {
				wire.Prove(t, other, hosttest.Secret, nil)
			}
			hosttest.WantCode(t, "the same nonce of another self id", victim.Handshake(t, other), 0)
		})
	}
}

// A bound handshake that a thief sends first, on a connection of his own, is
// refused, and leaves the honest one as good as it was.
func TestAudit_PROTO33_ThievesCannotSpendABoundNonce(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	victim, thief := wire.Dial(t, host), wire.Dial(t, host)
	captured := wire.Prove(t, wire.FreshRequest("api"), hosttest.Secret, victim.Binding)
	hosttest.WantCode(t, "the thief's connection", thief.Handshake(t, captured), connect.CodeUnauthenticated)
	hosttest.WantCode(t, "the victim's connection", victim.Handshake(t, captured), 0)
	// What is wrong does not spend the nonce either: with it anybody could.
	unproven := wire.FreshRequest("api")
	hosttest.WantCode(t, "a guess", thief.Handshake(t, wire.Prove(t, unproven, []byte("another secret of some length"), nil)), connect.CodeUnauthenticated)
	hosttest.WantCode(t, "the right one", victim.Handshake(t, wire.Prove(t, unproven, hosttest.Secret, nil)), 0)
}

// What a host accepted, the host that takes its place refuses.
func TestAudit_PROTO33_RestartsForgetNothing(t *testing.T) {
	t.Parallel()
	first := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	before := wire.Dial(t, first)
	bound := wire.Prove(t, wire.FreshRequest("api"), hosttest.Secret, before.Binding)
	unbound := wire.Prove(t, wire.FreshRequest("api"), hosttest.Secret, nil)
	hosttest.WantCode(t, "bound, before", before.Handshake(t, bound), 0)
	hosttest.WantCode(t, "unbound, before", before.Handshake(t, unbound), 0)
	first.Stop(t)
	second := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Policy, c.Authority = hosttest.LoggerPolicy(), first.Authority })
	second.Authority = first.Authority
	after := wire.Dial(t, second)
	hosttest.WantCode(t, "bound, after", after.Handshake(t, bound), connect.CodeUnauthenticated)
	hosttest.WantCode(t, "unbound, after", after.Handshake(t, unbound), connect.CodeUnauthenticated)
	hosttest.WantCode(t, "a new one", after.Handshake(t, wire.Prove(t, wire.FreshRequest("api"), hosttest.Secret, nil)), 0)
}

// Clocks may differ by the skew in either direction and by no more. A time that is
// missing or no time is refused.
func TestAudit_PROTO33_ClockSkew(t *testing.T) {
	t.Parallel()
	const skew = 2 * time.Minute
	wire.InBubble(t, hosttest.WithPolicy(hosttest.LoggerPolicy()), func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		<-time.After(time.Hour) // unbound proofs of before the host began are refused anyway
		conn := h.Dial(t)
		for _, bound := range []bool{true, false} {
			for _, c := range []struct {
				offset time.Duration
				want   connect.Code
			}{
				{-time.Hour, connect.CodeUnauthenticated},
				{-skew - time.Millisecond, connect.CodeUnauthenticated},
				{-skew + time.Second, 0},
				{0, 0},
				{skew - time.Second, 0},
				{skew + time.Second, connect.CodeUnauthenticated},
				{time.Hour, connect.CodeUnauthenticated},
			} {
				m := wire.FreshRequest("api")
				m.IssuedAt = timestamppb.New(time.Now().Add(c.offset))
				hosttest.WantCode(t, fmt.Sprintf("a clock off by %s", c.offset), conn.Handshake(t, conn.Prove(t, m, bound)), c.want)
			}
			for name, at := range map[string]*timestamppb.Timestamp{
				"missing":    nil,
				"zero":       {},
				"far future": {Seconds: 1 << 62},
				"far past":   {Seconds: -1 << 62},
				"overflow":   {Seconds: -1 << 63, Nanos: -1},
			} {
				m := wire.FreshRequest("api")
				m.IssuedAt = at
				hosttest.WantCode(t, name, conn.Handshake(t, conn.Prove(t, m, bound)), connect.CodeUnauthenticated)
			}
		}
	})
}

// However long a thief waits, what was captured is refused: first as seen before,
// then as too old, with no moment in between.
func TestAudit_PROTO33_NoWaitRevivesAHandshake(t *testing.T) {
	t.Parallel()
	const skew = 2 * time.Minute
	for _, bound := range []bool{true, false} {
		for _, ahead := range []time.Duration{-skew + time.Second, 0, skew - time.Second} {
			t.Run(fmt.Sprintf("bound %t, clock off by %s", bound, ahead), func(t *testing.T) {
				t.Parallel()
				wire.InBubble(t, hosttest.WithPolicy(hosttest.LoggerPolicy()), func(t *testing.T, h *wire.BubbleHost) {
					t.Helper()
					<-time.After(time.Hour)
					conn := h.Dial(t)
					captured := wire.FreshRequest("api")
					captured.IssuedAt = timestamppb.New(time.Now().Add(ahead))
					conn.Prove(t, captured, bound)
					hosttest.WantCode(t, "the honest handshake", conn.Handshake(t, captured), 0)
					for range 60 {
						<-time.After(5 * time.Second)
						hosttest.WantCode(t, "again", conn.Handshake(t, captured), connect.CodeUnauthenticated)
						// The host forgets as it serves others.
						hosttest.WantCode(t, "another", conn.Handshake(t, conn.Prove(t, wire.FreshRequest("logger"), bound)), 0)
					}
					reasons := strings.Join(h.Reasons(), "\n")
					if !strings.Contains(reasons, "used before") && ahead > -time.Minute || !strings.Contains(reasons, "skew") {
						t.Errorf("refused for other reasons: %s", reasons)
					}
				})
			})
		}
	}
}

// A cache that is full refuses new handshakes rather than forget old ones, one self
// id cannot fill it for all, and time makes room.
func TestAudit_PROTO33_AFullCacheRefuses(t *testing.T) {
	t.Parallel()
	const size, perSelf, skew = 32, 2, time.Minute
	wire.InBubble(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Default: &connectplugin.PluginPolicy{Secret: hosttest.Secret}}
		c.HandshakeAuth.ReplayCacheSize, c.HandshakeAuth.MaxClockSkew = size, skew
	}, func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		<-time.After(time.Hour)
		conn := h.Dial(t)
		name := func(i int) string { return fmt.Sprintf("plugin-%d", i) }
		var accepted []*connectpluginv1.HandshakeRequest
		for i := range size / perSelf {
			for range perSelf {
				m := conn.Prove(t, wire.FreshRequest(name(i)), true)
				hosttest.WantCode(t, "with room", conn.Handshake(t, m), 0)
				accepted = append(accepted, m)
			}
			over := conn.Prove(t, wire.FreshRequest(name(i)), true)
			hosttest.WantCode(t, "beyond the share of one self id", conn.Handshake(t, over), connect.CodeUnauthenticated)
		}
		late := conn.Prove(t, wire.FreshRequest("late"), true)
		hosttest.WantCode(t, "a full cache", conn.Handshake(t, late), connect.CodeUnauthenticated)
		for _, m := range accepted {
			hosttest.WantCode(t, "a captured handshake while the cache is full", conn.Handshake(t, m), connect.CodeUnauthenticated)
		}
		if reasons := h.Reasons(); !strings.Contains(strings.Join(reasons, "\n"), "full") {
			t.Errorf("refused for other reasons: %q", reasons)
		}
		<-time.After(skew + time.Second)
		hosttest.WantCode(t, "after the window", conn.Handshake(t, conn.Prove(t, wire.FreshRequest("late"), true)), 0)
		for _, m := range accepted {
			hosttest.WantCode(t, "a captured handshake after the window", conn.Handshake(t, m), connect.CodeUnauthenticated)
		}
	})
}
