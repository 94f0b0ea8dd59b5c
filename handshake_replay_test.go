package connectplugin_test

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
)

// wantCode fails unless a handshake ended as it should; zero is success.
func wantCode(t *testing.T, what string, got, want connect.Code) {
	t.Helper()
	if got != want {
		t.Errorf("%s: code %v, want %v (0 is success)", what, got, want)
	}
}

// encodings are the ways in which a handshake can be written.
var encodings = map[string][]connect.ClientOption{
	"connect": nil, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()}, "json": {connect.WithProtoJSON()},
}

// A handshake that was accepted once is refused ever after: on its connection, on
// another, in another protocol.
func TestAudit_PROTO33_CapturedHandshakesAreRefused(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(loggerPolicy()))
	for name, bound := range map[string]bool{"bound": true, "unbound": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			victim, thief := dialWire(t, host), dialWire(t, host)
			sign := func(c *wireConn) *connectpluginv1.HandshakeRequest {
				if bound {
					return prove(t, freshRequest("api"), hosttest.Secret, c.binding)
				}
				return prove(t, freshRequest("api"), hosttest.Secret, nil)
			}
			captured := sign(victim)
			wantCode(t, "the honest handshake", victim.handshake(t, captured), 0)
			for protocol, opts := range encodings {
				wantCode(t, "again on its connection over "+protocol, victim.handshake(t, captured, opts...), connect.CodeUnauthenticated)
				wantCode(t, "on another connection over "+protocol, thief.handshake(t, captured, opts...), connect.CodeUnauthenticated)
				wantCode(t, "a new handshake over "+protocol, victim.handshake(t, sign(victim), opts...), 0)
			}
			// Another's nonce, even the same, is nobody's business.
			other := sign(victim)
			other.SelfId, other.ClientNonce = "logger", captured.GetClientNonce()
			if bound {
				prove(t, other, hosttest.Secret, victim.binding)
			} else {
				prove(t, other, hosttest.Secret, nil)
			}
			wantCode(t, "the same nonce of another self id", victim.handshake(t, other), 0)
		})
	}
}

// A bound handshake that a thief sends first, on a connection of his own, is
// refused, and leaves the honest one as good as it was.
func TestAudit_PROTO33_ThievesCannotSpendABoundNonce(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(loggerPolicy()))
	victim, thief := dialWire(t, host), dialWire(t, host)
	captured := prove(t, freshRequest("api"), hosttest.Secret, victim.binding)
	wantCode(t, "the thief's connection", thief.handshake(t, captured), connect.CodeUnauthenticated)
	wantCode(t, "the victim's connection", victim.handshake(t, captured), 0)
	// What is wrong does not spend the nonce either: with it anybody could.
	unproven := freshRequest("api")
	wantCode(t, "a guess", thief.handshake(t, prove(t, unproven, []byte("another secret of some length"), nil)), connect.CodeUnauthenticated)
	wantCode(t, "the right one", victim.handshake(t, prove(t, unproven, hosttest.Secret, nil)), 0)
}

// What a host accepted, the host that takes its place refuses.
func TestAudit_PROTO33_RestartsForgetNothing(t *testing.T) {
	t.Parallel()
	first := hosttest.Start(t, withPolicy(loggerPolicy()))
	before := dialWire(t, first)
	bound := prove(t, freshRequest("api"), hosttest.Secret, before.binding)
	unbound := prove(t, freshRequest("api"), hosttest.Secret, nil)
	wantCode(t, "bound, before", before.handshake(t, bound), 0)
	wantCode(t, "unbound, before", before.handshake(t, unbound), 0)
	first.Stop(t)
	second := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Policy, c.Authority = loggerPolicy(), first.Authority })
	second.Authority = first.Authority
	after := dialWire(t, second)
	wantCode(t, "bound, after", after.handshake(t, bound), connect.CodeUnauthenticated)
	wantCode(t, "unbound, after", after.handshake(t, unbound), connect.CodeUnauthenticated)
	wantCode(t, "a new one", after.handshake(t, prove(t, freshRequest("api"), hosttest.Secret, nil)), 0)
}

// Clocks may differ by the skew in either direction and by no more. A time that is
// missing or no time is refused.
func TestAudit_PROTO33_ClockSkew(t *testing.T) {
	t.Parallel()
	const skew = 2 * time.Minute
	inBubble(t, withPolicy(loggerPolicy()), func(t *testing.T, h *bubbleHost) {
		t.Helper()
		<-time.After(time.Hour) // unbound proofs of before the host began are refused anyway
		conn := h.dial(t)
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
				m := freshRequest("api")
				m.IssuedAt = timestamppb.New(time.Now().Add(c.offset))
				wantCode(t, fmt.Sprintf("a clock off by %s", c.offset), conn.handshake(t, conn.prove(t, m, bound)), c.want)
			}
			for name, at := range map[string]*timestamppb.Timestamp{
				"missing":    nil,
				"zero":       {},
				"far future": {Seconds: 1 << 62},
				"far past":   {Seconds: -1 << 62},
				"overflow":   {Seconds: -1 << 63, Nanos: -1},
			} {
				m := freshRequest("api")
				m.IssuedAt = at
				wantCode(t, name, conn.handshake(t, conn.prove(t, m, bound)), connect.CodeUnauthenticated)
			}
		}
	})
}

// prove proves a request, bound to the connection or not.
func (c *wireConn) prove(t testing.TB, m *connectpluginv1.HandshakeRequest, bound bool) *connectpluginv1.HandshakeRequest {
	t.Helper()
	if bound {
		return prove(t, m, hosttest.Secret, c.binding)
	}
	return prove(t, m, hosttest.Secret, nil)
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
				inBubble(t, withPolicy(loggerPolicy()), func(t *testing.T, h *bubbleHost) {
					t.Helper()
					<-time.After(time.Hour)
					conn := h.dial(t)
					captured := freshRequest("api")
					captured.IssuedAt = timestamppb.New(time.Now().Add(ahead))
					conn.prove(t, captured, bound)
					wantCode(t, "the honest handshake", conn.handshake(t, captured), 0)
					for range 60 {
						<-time.After(5 * time.Second)
						wantCode(t, "again", conn.handshake(t, captured), connect.CodeUnauthenticated)
						// The host forgets as it serves others.
						wantCode(t, "another", conn.handshake(t, conn.prove(t, freshRequest("logger"), bound)), 0)
					}
					reasons := strings.Join(h.reasons(), "\n")
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
	inBubble(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Default: &connectplugin.PluginPolicy{Secret: hosttest.Secret}}
		c.HandshakeAuth.ReplayCacheSize, c.HandshakeAuth.MaxClockSkew = size, skew
	}, func(t *testing.T, h *bubbleHost) {
		t.Helper()
		<-time.After(time.Hour)
		conn := h.dial(t)
		name := func(i int) string { return fmt.Sprintf("plugin-%d", i) }
		var accepted []*connectpluginv1.HandshakeRequest
		for i := range size / perSelf {
			for range perSelf {
				m := conn.prove(t, freshRequest(name(i)), true)
				wantCode(t, "with room", conn.handshake(t, m), 0)
				accepted = append(accepted, m)
			}
			over := conn.prove(t, freshRequest(name(i)), true)
			wantCode(t, "beyond the share of one self id", conn.handshake(t, over), connect.CodeUnauthenticated)
		}
		late := conn.prove(t, freshRequest("late"), true)
		wantCode(t, "a full cache", conn.handshake(t, late), connect.CodeUnauthenticated)
		for _, m := range accepted {
			wantCode(t, "a captured handshake while the cache is full", conn.handshake(t, m), connect.CodeUnauthenticated)
		}
		if reasons := h.reasons(); !strings.Contains(strings.Join(reasons, "\n"), "full") {
			t.Errorf("refused for other reasons: %q", reasons)
		}
		<-time.After(skew + time.Second)
		wantCode(t, "after the window", conn.handshake(t, conn.prove(t, freshRequest("late"), true)), 0)
		for _, m := range accepted {
			wantCode(t, "a captured handshake after the window", conn.handshake(t, m), connect.CodeUnauthenticated)
		}
	})
}
