package edge_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// healthWatch opens a watch of the host's health and returns its end, where it has one before
// its first event.
func healthWatch(t *testing.T, host *hosttest.Host, c *connectplugin.Client, opts ...connect.ClientOption) (cancel context.CancelFunc, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), host.URL, opts...).
		Watch(ctx, connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
	if err != nil {
		return cancel, err
	}
	if stream.Receive() {
		return cancel, nil
	}
	return cancel, stream.Err()
}

// A watch of the host's health counts as any other, and another plugin has its own.
func TestAudit_ATK05_HealthWatchesCount(t *testing.T) {
	t.Parallel()
	for protocol, opts := range hosttest.Protocols {
		for name, limit := range map[string]func(*connectplugin.Limits){
			"each":   func(l *connectplugin.Limits) { l.MaxWatchesPerPlugin = 2 },
			"in all": func(l *connectplugin.Limits) { l.MaxWatches = 2 },
		} {
			t.Run(protocol+", "+name, func(t *testing.T) {
				t.Parallel()
				host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
					c.Policy = hosttest.LoggerPolicy()
					limit(&c.Limits)
				})
				bad, other := host.Enrol(t, "api", nil), host.Enrol(t, "other", nil)
				first, err := healthWatch(t, host, bad, opts...)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := healthWatch(t, host, bad, opts...); err != nil {
					t.Fatal(err)
				}
				_, err = healthWatch(t, host, bad, opts...)
				if connect.CodeOf(err) != connect.CodeResourceExhausted || retryHint(err) <= 0 {
					t.Errorf("one too many: %v, want resource_exhausted and when to come again", err)
				}
				if _, err := healthWatch(t, host, other, opts...); (err == nil) != (name == "each") {
					t.Errorf("another plugin: %v", err)
				}
				first()
				hosttest.Eventually(t, "a watch that ended makes room", func() bool {
					_, err := healthWatch(t, host, bad, opts...)
					return err == nil
				})
			})
		}
	}
}

// A watch counts before its message is there, and ends where that does not come.
func TestAudit_ATK05_WatchesCountFromTheirFirstByte(t *testing.T) {
	t.Parallel()
	for _, procedure := range []string{
		connectpluginv1connect.ServiceRegistryWatchServiceProcedure, connectpluginv1connect.HealthServiceWatchProcedure,
	} {
		t.Run(procedure, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = hosttest.LoggerPolicy()
				c.Limits.MaxWatchesPerPlugin, c.Limits.BodyTimeout = 2, time.Hour
			})
			c := host.Enrol(t, "api", hosttest.Requiring("logger"))
			for range 2 { // whose messages are there: they give back what they took before, and no more than that
				hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "logger"}).Next(t)
			}
			header := hosttest.IdentityHeader(c.RuntimeID(), c.RuntimeToken())
			send := func() *stuck {
				h := maps.Clone(header)
				h.Set("Content-Type", "application/connect+proto")
				return stick(t, host.Stranger(t), host.URL+procedure, h, []byte{0, 0, 0, 0, 9, 1})
			}
			all := []*stuck{send(), send(), send()}
			hosttest.Eventually(t, "one is refused", func() bool { return len(all[0].answer)+len(all[1].answer)+len(all[2].answer) > 0 })
			wantRefused(t, all, 1, "open watches")
			if events, _ := limitedOf(host, "(Limits.MaxWatchesPerPlugin)"); len(events) != 1 {
				t.Errorf("the audit does not name the one bound: %v", host.Audit.Events())
			}
			for _, s := range all {
				_ = s.body.Close()
			}
			hosttest.Eventually(t, "room for an honest watch", func() bool {
				_, err := healthWatch(t, host, c)
				return err == nil
			})
		})
	}
}

// Where the message of a watch does not come, the watch ends.
func TestAudit_ATK05_WatchesWithoutMessageEnd(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Limits.BodyTimeout = hosttest.LoggerPolicy(), 3*time.Second
	})
	c := host.Enrol(t, "api", hosttest.Requiring("logger"))
	header := hosttest.IdentityHeader(c.RuntimeID(), c.RuntimeToken())
	header.Set("Content-Type", "application/grpc")
	s := stick(t, host.Stranger(t), host.URL+connectpluginv1connect.ServiceRegistryWatchServiceProcedure, header, []byte{0, 0, 0, 0, 9, 1})
	w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "logger"})
	w.Next(t)
	if answer := hosttest.Arrival(t, s.answer); !says(answer, connect.CodeDeadlineExceeded) {
		t.Errorf("%s, want deadline_exceeded", answer)
	}
	w.Quiet(t, "an honest watch goes on beyond the time for its message")
}

// openStream opens a call that stays open, to the echo service of a place.
func openStream(t *testing.T, client connect.HTTPClient, place echo.Place, opts ...connect.ClientOption) (cancel context.CancelFunc, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream := echo.NewClient(echo.At(place.URL, client), echo.Bidi, opts...).CallBidiStream(ctx)
	maps.Copy(stream.RequestHeader(), place.Header)
	if err := stream.Send(&echo.Text{Value: "x"}); err != nil {
		_, err = stream.Receive()
		return cancel, err
	}
	_, err = stream.Receive()
	return cancel, err
}

// Whatever an identity calls, what it has open is bounded, and what others may have is
// theirs.
func TestAudit_ATK14_OpenCallsAreBounded(t *testing.T) {
	t.Parallel()
	for protocol, opts := range hosttest.Protocols {
		if protocol == "grpc-web" {
			continue // has no streams in both directions over HTTP/1
		}
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			host := startSwellHost(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) { c.Limits.MaxOpenCallsPerIdentity = 6 })
			bad, places := host.Places(t)
			good, own := host.Places(t)
			open := map[string]context.CancelFunc{}
			for name, place := range places {
				for range 2 {
					cancel, err := openStream(t, bad.HTTPClient(), place, opts...)
					if err != nil {
						t.Fatal(name, err)
					}
					open[name] = cancel
				}
			}
			for name, place := range places {
				if _, err := openStream(t, bad.HTTPClient(), place, opts...); connect.CodeOf(err) != connect.CodeResourceExhausted || retryHint(err) <= 0 ||
					!strings.Contains(err.Error(), "too many open calls") {
					t.Errorf("%s: one too many: %v, want resource_exhausted, of what and when to come again", name, err)
				}
				if _, err := openStream(t, good.HTTPClient(), own[name], opts...); err != nil {
					t.Errorf("%s: another plugin: %v", name, err)
				}
			}
			if events, _ := limitedOf(host.Host, "(Limits.MaxOpenCallsPerIdentity)"); len(events) != len(places) {
				t.Errorf("the audit does not name the one bound: %v", host.Audit.Events())
			}
			for _, cancel := range open {
				cancel()
			}
			hosttest.Eventually(t, "calls that ended make room", func() bool {
				_, err := openStream(t, bad.HTTPClient(), places["in process"], opts...)
				return err == nil
			})
		})
	}
}

// longHead are fields for which a request counts as three.
func longHead() http.Header {
	const fields = 300
	h := http.Header{}
	for i := range fields {
		h.Set("X-Long-"+strconv.Itoa(i), "")
	}
	return h
}

// A request whose head is large counts as several, since that is held as long as it is open.
func TestAudit_ATK14_OpenCallsOfLongHeads(t *testing.T) {
	t.Parallel()
	const seats = 7 // for two of three each, and one
	host := startSwellHost(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) { c.Limits.MaxOpenCallsPerIdentity = seats })
	c, places := host.Places(t)
	short := places["host plugin"]
	long := short
	long.Header = longHead()
	maps.Copy(long.Header, short.Header)
	var open []context.CancelFunc
	for i, tt := range []struct {
		place echo.Place
		room  bool
	}{{long, true}, {long, true}, {long, false}, {short, true}, {short, false}} {
		cancel, err := openStream(t, c.HTTPClient(), tt.place)
		if tt.room != (err == nil) || err != nil && connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("call %d: %v, want room: %t", i+1, err, tt.room)
		}
		open = append(open, cancel)
	}
	for _, cancel := range open {
		cancel()
	}
	for range seats { // each of which was given back
		hosttest.Eventually(t, "calls that ended make room", func() bool {
			_, err := openStream(t, c.HTTPClient(), short)
			return err == nil
		})
	}
}

// There is a bound for all together, too.
func TestAudit_ATK14_OpenCallsAreBoundedInAll(t *testing.T) {
	t.Parallel()
	host := startSwellHost(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) { c.Limits.MaxOpenCalls = 8 })
	refused := 0
	for range 3 {
		c, places := host.Places(t)
		for range 3 {
			if _, err := openStream(t, c.HTTPClient(), places["host plugin"]); connect.CodeOf(err) == connect.CodeResourceExhausted && err != nil {
				refused++
			} else if err != nil {
				t.Error(err)
			}
		}
		if refused > 0 {
			break
		}
	}
	if refused == 0 {
		t.Error("as many are open as callers like")
	}
	if events, _ := limitedOf(host.Host, "(Limits.MaxOpenCalls)"); len(events) != refused {
		t.Errorf("the audit does not name the one bound: %v", host.Audit.Events())
	}
}

// However many requests come in one piece, the next is taken on as soon as one has begun, and not a
// while later: the clock of the bubble stands while they are served.
func TestAudit_ATK14_RequestsThatBeginKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	const asked = 90
	wire.InBubble(t, func(*connectplugin.ServeConfig) {}, func(t *testing.T, h *wire.BubbleHost) {
		conn := h.Raw(t)
		var out bytes.Buffer
		out.WriteString(http2.ClientPreface)
		f := http2.NewFramer(&out, conn)
		err := f.WriteSettings()
		block := headBlock("localhost", "/healthz")
		for i := range uint32(asked) {
			err = errors.Join(err, f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true, EndStream: true,
			}))
		}
		begun := time.Now()
		_, failed := conn.Write(out.Bytes())
		if err := errors.Join(err, failed); err != nil {
			t.Fatal(err)
		}
		for answered := 0; answered < asked; {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if frame.Header().Type == http2.FrameHeaders {
				answered++
			}
		}
		if took := time.Since(begun); took > asked/4*time.Millisecond {
			t.Errorf("%d requests are answered after %v, want at once", asked, took)
		}
	})
}

// Of a number that is full a caller is told which, and not that it asks too often.
func TestLimits_NumbersAreNoRate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set  func(*connectplugin.Limits)
		says string
	}{
		"of a plugin": {func(l *connectplugin.Limits) { l.MaxRegistrationsPerPlugin = 1 }, "too many registrations"},
		"in all":      {func(l *connectplugin.Limits) { l.MaxRegistrations = 1 }, "too many registrations in all"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.set, nil)
			c := r.Enrol(t, "registrar", hosttest.Providing(manyTypes()...))
			var err error
			for i := 0; err == nil && i < 4; i++ {
				err = hosttest.ErrorOf(hosttest.Register(t, c, manyTypes()[i], "1.0.0"))
			}
			if err == nil || err.Error() != "resource_exhausted: "+tt.says {
				t.Errorf("%v, want %s", err, tt.says)
			}
		})
	}
}

// All instances of a plugin have as many calls open as four of them may, and leave room for others however many each
// may have: together they are no more than three quarters of all.
func TestAudit_ATK14_OpenCallsOfInstancesAreBounded(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limits connectplugin.Limits
		most   int
	}{
		"as many as four":    {connectplugin.Limits{MaxOpenCallsPerIdentity: 2, MaxOpenCalls: 100}, 8},
		"three quarters":     {connectplugin.Limits{MaxOpenCallsPerIdentity: 8, MaxOpenCalls: 16}, 12},
		"what one may have":  {connectplugin.Limits{MaxOpenCallsPerIdentity: 14, MaxOpenCalls: 16}, 14},
		"as many as of some": {connectplugin.Limits{MaxOpenCallsPerIdentity: 3, MaxOpenCalls: 16}, 12},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := startSwellHost(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) {
				c.Limits = tt.limits
				c.Policy.Plugins["other"] = c.Policy.Plugins["caller"]
			})
			const instances = 8
			var (
				of     [instances]*connectplugin.Client
				places [instances]map[string]echo.Place
				open   []context.CancelFunc
			)
			for i := range instances {
				of[i], places[i] = host.Places(t)
			}
			for i := range instances {
				for _, place := range places[i] {
					cancel, err := openStream(t, of[i].HTTPClient(), place)
					switch {
					case err == nil:
						open = append(open, cancel)
					case connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "too many open calls"):
						t.Fatal(err)
					}
				}
			}
			if len(open) != tt.most {
				t.Errorf("%d calls of all instances are open, want %d", len(open), tt.most)
			}
			other := host.Enrol(t, "other", hosttest.Requiring(echo.Type))
			place := echo.Place{URL: host.URL, Header: hosttest.IdentityHeader(other.RuntimeID(), other.RuntimeToken())}
			if _, err := openStream(t, other.HTTPClient(), place); err != nil {
				t.Errorf("another plugin: %v", err)
			}
			if events, _ := limitedOf(host.Host, "(Limits.MaxOpenCalls)"); len(events) != 0 {
				t.Errorf("all that there are were taken: %v", events)
			}
			open[0]()
			hosttest.Eventually(t, "one that ended makes room for another instance", func() bool {
				_, err := openStream(t, of[instances-1].HTTPClient(), places[instances-1]["in process"])
				return err == nil
			})
		})
	}
}
