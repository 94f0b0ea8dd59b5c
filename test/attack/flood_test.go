package attack_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// flooder is a stranger that speaks frames.
type flooder struct {
	*http2.Framer

	conn *tls.Conn
	head []byte
}

func newFlooder(t *testing.T, host *hosttest.Host, more ...string) *flooder {
	t.Helper()
	cfg := host.StrangerTLS()
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", host.Addr(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	f := &flooder{Framer: http2.NewFramer(conn, conn), conn: conn}
	_, err = io.WriteString(conn, http2.ClientPreface)
	if err = errors.Join(err, f.WriteSettings()); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	enc := hpack.NewEncoder(&b)
	for _, field := range [][2]string{
		{":method", "POST"},
		{":scheme", "https"},
		{":authority", host.Addr()},
		{":path", "/connectplugin.v1.ServiceRegistry/DiscoverService"},
		{"content-type", "application/proto"},
	} {
		_ = enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	for i := 0; i < len(more); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: more[i], Value: more[i+1], Sensitive: true})
	}
	f.head = []byte(b.String())
	return f
}

func (f *flooder) open(i uint32, end bool) error {
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: f.head, EndHeaders: true, EndStream: end})
}

// reason reads until the connection ends, and returns the text of the last GOAWAY.
func (f *flooder) reason() string {
	_ = f.conn.SetReadDeadline(time.Now().Add(time.Minute))
	last := ""
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return last
		}
		if g, ok := frame.(*http2.GoAwayFrame); ok {
			last = string(g.DebugData())
		}
	}
}

// Who sends frames that no request explains is cut off, and the audit says why; a plugin
// beside it notices nothing.
func TestAudit_H48_FloodsAreCutOff(t *testing.T) {
	t.Parallel()
	floods := map[string]func(f *flooder, i uint32) error{
		"reset": func(f *flooder, i uint32) error {
			return errors.Join(f.open(i, true), f.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		},
		"refused": func(f *flooder, i uint32) error { return f.open(i, true) },
		"SETTINGS": func(f *flooder, _ uint32) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 70_000})
		},
		"PING":          func(f *flooder, _ uint32) error { return f.WritePing(false, [8]byte{}) },
		"PRIORITY":      func(f *flooder, i uint32) error { return f.WritePriority(2*i+1, http2.PriorityParam{Weight: 1}) },
		"WINDOW_UPDATE": func(f *flooder, _ uint32) error { return f.WriteWindowUpdate(0, 1) },
		"other types":   func(f *flooder, _ uint32) error { return f.WriteRawFrame(0x42, 0, 0, []byte("x")) },
		"empty DATA": func(f *flooder, i uint32) error {
			if i == 0 {
				return f.open(0, false)
			}
			return f.WriteData(1, false, nil)
		},
		"streams that have ended": func(f *flooder, i uint32) error {
			if i == 0 {
				return f.open(0, true)
			}
			return f.WriteData(1, false, make([]byte, 16<<10))
		},
	}
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = hosttest.Rights(map[string][2][]string{"honest": {}})
				c.Limits.RefusalsPerSecond, c.Limits.RefusalBurst = 1, 1000 // a slow machine refuses slowly
			})
			honest := host.Enrol(t, "honest", nil)
			f := newFlooder(t, host)
			why := make(chan string, 1)
			go func() { why <- f.reason() }()
			for i := range uint32(20_000) {
				if flood(f, i) != nil {
					break
				}
				if i%4000 == 0 {
					if err := honest.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
						t.Errorf("the honest plugin: %v", err)
					}
				}
			}
			<-why // lost where the connection broke before it was read: the audit has it
			hosttest.Eventually(t, "the audit has the end of the flood", func() bool {
				for _, e := range host.Audit.Events() {
					// Calls that are refused before their reset is there are a flood of refusals.
					named := strings.Contains(e.Reason, name) || name == "reset" && strings.Contains(e.Reason, "refused")
					if e.Kind == connectplugin.AuditLimited && strings.Contains(e.Reason, "cut off") && named {
						return true
					}
				}
				return false
			})
			if err := honest.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
				t.Errorf("the honest plugin, afterwards: %v", err)
			}
		})
	}
}

// Nor does an identity pay for calls that it gives up as soon as they have begun, while one
// that gives some up keeps its connection.
func TestAudit_H48_ResetsOfAPluginAreCutOff(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"bad": {}, "honest": {}})
	})
	bad, honest := host.Enrol(t, "bad", nil), host.Enrol(t, "honest", nil)
	f := newFlooder(t, host, "x-plugin-runtime-id", bad.RuntimeID(), "authorization", "Bearer "+bad.RuntimeToken())
	why := make(chan string, 1)
	go func() { why <- f.reason() }()
	for i := range uint32(20_000) {
		if errors.Join(f.open(i, false), f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)) != nil {
			break
		}
	}
	<-why
	hosttest.Eventually(t, "the audit has the end of the flood", func() bool {
		return slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
			return e.Kind == connectplugin.AuditLimited && strings.Contains(e.Reason, "cut off") && strings.Contains(e.Reason, "reset streams")
		})
	})
	for range 500 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = honest.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
	}
	if err := honest.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		t.Errorf("the honest plugin: %v", err)
	}
}

// Sockets on which nobody says a word do not keep plugins of their address out, and an
// enrolled plugin is not displaced for them.
func TestAudit_ATK11_IdleSocketsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"early": {}, "late": {}})
		c.Limits.MaxConnectionsPerPeer = 10
	})
	early := host.Enrol(t, "early", nil)
	for i := range 30 {
		conn, err := net.Dial("tcp", host.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if i%2 == 0 {
			cfg := host.StrangerTLS()
			cfg.NextProtos, cfg.ServerName = []string{"h2"}, "localhost"
			go func() { _ = tls.Client(conn, cfg).HandshakeContext(t.Context()) }()
		}
	}
	cfg := host.ClientConfig(t, "late")
	late, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Close() })
	hosttest.Eventually(t, "the late plugin enrols", func() bool { return late.Connect(t.Context()) == nil })
	for _, c := range []*connectplugin.Client{early, late} {
		if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
			t.Error(err)
		}
	}
}

// Strangers of many addresses who hold all connections, and say PING all the time, keep no plugin out, and take
// nothing from those that are there.
func TestAudit_ATK11_PingsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	const addresses, each = 10, 3
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"early": {}, "late": {}})
		c.Limits.MaxConnections, c.Limits.MaxConnectionsPerPeer = addresses*each, each
	})
	early := host.Enrol(t, "early", nil)
	for i := range addresses*each - 1 { // the early one has the last place
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%addresses))}
		pingAlways(t, host, from)
	}
	late, err := connectplugin.NewClient(host.ClientConfig(t, "late"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Close() })
	enrol := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return late.Connect(ctx)
	}
	for tries := 0; enrol() != nil; tries++ {
		if tries == 10 { // long before connections end on which nothing is asked
			t.Fatal("strangers keep the late plugin out")
		}
	}
	for _, c := range []*connectplugin.Client{early, late} {
		if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
			t.Error(err)
		}
	}
}

// pingAlways opens a connection that says PING twice a second until it ends, or the test does.
func pingAlways(t *testing.T, host *hosttest.Host, from net.Addr) {
	t.Helper()
	cfg := host.StrangerTLS()
	cfg.NextProtos, cfg.ServerName = []string{"h2"}, "localhost"
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: from}, Config: cfg}
	conn, err := d.DialContext(t.Context(), "tcp", host.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	framer := http2.NewFramer(conn, nil)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = framer.WriteSettings()
	go func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for framer.WritePing(false, [8]byte{}) == nil {
			<-tick.C
		}
	}()
}

// Who was cut off waits with its next requests, and so do the other instances of the plugin and the next one.
func TestAudit_ATK14_WhoWasCutOffWaitsInEachInstance(t *testing.T) {
	t.Parallel()
	const cuts, asks, attempts, waits = 4, 3, 5, 400 * time.Millisecond // of two seconds
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"bad": {}})
		c.Limits.PingsPerSecond, c.Limits.PingBurst = 1e-3, 8
		c.Limits.HandshakesPerSecond = 1_000
	})
	cutOff := func(c *connectplugin.Client) {
		var cutting sync.WaitGroup
		for range cuts {
			f := newFlooder(t, host, "x-plugin-runtime-id", c.RuntimeID(), "authorization", "Bearer "+c.RuntimeToken())
			if err := f.open(0, true); err != nil {
				t.Fatal(err)
			}
			for answered := false; !answered; {
				frame, err := f.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				answered = frame.Header().Type == http2.FrameHeaders
			}
			cutting.Go(func() {
				for range 100 {
					if f.WritePing(false, [8]byte{}) != nil {
						break
					}
				}
				_ = f.reason()
			})
		}
		cutting.Wait()
	}
	for name, next := range map[string]func(bad *connectplugin.Client) *connectplugin.Client{
		"another instance": func(*connectplugin.Client) *connectplugin.Client { return host.Enrol(t, "bad", nil) },
		"the next one": func(bad *connectplugin.Client) *connectplugin.Client {
			host.Revoke(bad.RuntimeID())
			return host.Enrol(t, "bad", nil)
		},
	} {
		longest := time.Duration(0)
		for i := 0; i < attempts && longest < waits; i++ {
			bad := host.Enrol(t, "bad", nil)
			cutOff(bad)
			c := next(bad)
			begun := time.Now()
			for range asks {
				_, _ = c.RegistryClient().DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "none"}))
			}
			longest = max(longest, time.Since(begun))
		}
		if longest < waits {
			t.Errorf("%s: %d requests take %v", name, asks, longest)
		}
	}
}
