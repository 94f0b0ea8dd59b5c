package edge_test

import (
	"bytes"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// cutOff does something on a connection of frames until the host cuts it off for a reason. The
// first time is allowed: it is answered.
func cutOff(t *testing.T, r *rig, reason string, answer http2.FrameType, send func(f *http2.Framer, i uint32) error) {
	t.Helper()
	const most = 12
	f := frames(t, r)
	if err := send(f, 0); err != nil {
		t.Fatal(err)
	}
	await(t, f, answer)
	for i := range uint32(most) {
		if send(f, i+1) != nil {
			break // it is cut off by now
		}
	}
	away, _ := await(t, f, http2.FrameGoAway).(*http2.GoAwayFrame)
	if got := string(away.DebugData()); !strings.Contains(got, reason) {
		t.Errorf("cut off for %q, want %q", got, reason)
	}
}

// await reads frames until one of a type comes.
func await(t *testing.T, f *http2.Framer, want http2.FrameType) http2.Frame {
	t.Helper()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("before %v: %v", want, err)
		}
		if frame.Header().Type == want {
			return frame
		}
	}
}

// tooManyFields sends fields of which each is next to nothing.
func tooManyFields(t *testing.T, r *rig) {
	t.Helper()
	const many = 100
	f := frames(t, r)
	block := headBlock(r.Addr(), handshakeProc, slices.Repeat([][2]string{{"x", ""}}, many)...)
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	head, _ := await(t, f, http2.FrameHeaders).(*http2.HeadersFrame)
	fields, err := hpack.NewDecoder(4096, nil).DecodeFull(head.HeaderBlockFragment())
	if err != nil || len(fields) == 0 || fields[0].Value != "431" {
		t.Errorf("%d fields in a block of %d bytes: %v, %v", many, len(block), fields, err)
	}
}

// reachPings sends more PINGs than anything explains.
func reachPings(t *testing.T, r *rig) {
	t.Helper()
	cutOff(t, r, "too many PINGs", http2.FramePing, func(f *http2.Framer, _ uint32) error { return f.WritePing(false, [8]byte{}) })
}

// reachRefusals asks again and again for what there is not.
func reachRefusals(t *testing.T, r *rig) {
	t.Helper()
	cutOff(t, r, "too many requests that were refused", http2.FrameHeaders, func(f *http2.Framer, i uint32) error {
		block := headBlock(r.Addr(), "/nothing.v1.Here/Is")
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true, EndStream: true})
	})
}

// Heads are worth what they are when decoded, whatever stands for it on the wire: a stranger is cut off for a bad one that
// names the largest field of its table again and again, and for probes with as many fields as a head may have, however long
// it awaits the answer to each. So is a plugin for the first, on whose connection more is free; its probes wait for one another so
// long that what is free comes back meanwhile.
func TestAudit_H48_HeadsCountAsTheyAreDecoded(t *testing.T) {
	t.Parallel()
	const few = 8
	bad := slices.Concat([]byte{0x84, 0x84}, slices.Repeat([]byte{0xbe}, 16_000)) // two paths, and what came last
	for name, tt := range map[string]struct {
		field [2]string
		most  int
		storm func(encode encoding) []byte
		paced time.Duration // that each of a plugin takes on one processor, zero where it is cut off
	}{
		"a bad head": {[2]string{strings.Repeat("n", 3_900), ""}, 2, func(encoding) []byte { return bad }, 0},
		"probes of many fields": {[2]string{"x", ""}, 100, func(encode encoding) []byte {
			return encode(http.MethodGet, "/healthz", slices.Repeat([][2]string{{"x", ""}}, 900)...)
		}, 350 * time.Millisecond},
	} {
		for who, more := range map[string]int{"stranger": 1, "plugin": 20} {
			t.Run(name+", "+who, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(*connectplugin.Limits) {}, func(*connectplugin.ServeConfig) {})
				f, conn := framesOf(t, r)
				encode := blocks(r.Addr())
				send := func(from uint32, blocks ...[]byte) bool {
					_ = conn.SetReadDeadline(time.Now().Add(hosttest.Wait))
					for i, block := range blocks {
						if f.WriteHeaders(http2.HeadersFrameParam{
							StreamID: 2*(from+uint32(i)) + 1, BlockFragment: block, EndHeaders: true, EndStream: true,
						}) != nil {
							break
						}
					}
					return !slices.ContainsFunc(blocks, func([]byte) bool { return !answered(t, f) })
				}
				fields := [][2]string{{"content-type", "application/proto"}}
				if who == "plugin" {
					c := r.Enrol(t, "caller", nil)
					fields = append(fields, [2]string{"x-plugin-runtime-id", c.RuntimeID()},
						[2]string{"authorization", "Bearer " + c.RuntimeToken()})
				}
				if !send(0, encode(http.MethodPost, connectpluginv1connect.HealthServiceCheckProcedure, append(fields, tt.field)...)) {
					t.Fatal("the first request is not answered")
				}
				if who == "plugin" && tt.paced > 0 {
					begun := time.Now()
					for n := range uint32(few) {
						if !send(1+n, tt.storm(encode)) {
							t.Fatal("cut off")
						}
					}
					if took, least := time.Since(begun), (few-1)*tt.paced/time.Duration(runtime.GOMAXPROCS(0)); took < least {
						t.Errorf("%d requests take %v, want %v at least", few, took, least)
					}
					return
				}
				goesOn := true
				for n := 1; goesOn && n <= tt.most*more; n++ {
					goesOn = send(uint32(n), tt.storm(encode))
				}
				if goesOn {
					t.Errorf("not cut off after %d requests", tt.most*more)
				}
			})
		}
	}
}

// encoding makes header blocks of one connection.
type encoding func(method, path string, more ...[2]string) []byte

func blocks(authority string) encoding {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	return func(method, path string, more ...[2]string) []byte {
		block.Reset()
		for _, f := range append([][2]string{{":method", method}, {":scheme", "https"}, {":authority", authority}, {":path", path}}, more...) {
			_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		return bytes.Clone(block.Bytes())
	}
}

// answered awaits an answer, and reports false where the peer is cut off for its heads instead.
func answered(t *testing.T, f *http2.Framer) bool {
	t.Helper()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame, *http2.RSTStreamFrame:
			return true
		case *http2.GoAwayFrame:
			if got := string(frame.DebugData()); !strings.Contains(got, "too many bytes of header blocks") {
				t.Errorf("cut off for %q", got)
			}
			return false
		}
	}
}

// A plugin that is refused again and again keeps its connection, on which it is told so and waits
// longer and longer, whatever it is refused for and whatever else it gets; nobody else waits with it.
func TestAudit_ATK14_APluginIsRefusedAtItsPace(t *testing.T) {
	t.Parallel()
	const burst, perSecond, refused = 10, 1, 13 // so few that a slow machine is faster than what comes back
	check := func(t *testing.T, host *hosttest.Host, c *connectplugin.Client) error {
		t.Helper()
		req := connect.NewRequest(&connectpluginv1.HealthCheckRequest{})
		return hosttest.ErrorOf(connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), host.URL).Check(t.Context(), req))
	}
	get := func(path string) func(*testing.T, *hosttest.Host, *connectplugin.Client) error {
		return func(t *testing.T, host *hosttest.Host, c *connectplugin.Client) error {
			t.Helper()
			to := connect.NewClient[echo.Text, echo.Text](c.HTTPClient(), host.URL+path)
			return hosttest.ErrorOf(to.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x"))))
		}
	}
	var other sync.Map // connections on which nobody enrolled, by the host
	afresh := func(path string) func(*testing.T, *hosttest.Host, *connectplugin.Client) error {
		return func(t *testing.T, host *hosttest.Host, c *connectplugin.Client) error {
			t.Helper()
			to, ok := other.Load(host)
			if !ok {
				to = host.Stranger(t)
				other.Store(host, to)
			}
			req := connect.NewRequest(wrapperspb.String("x"))
			req.Header().Set("X-Plugin-Runtime-Id", c.RuntimeID())
			req.Header().Set("Authorization", "Bearer "+c.RuntimeToken())
			client, _ := to.(*http.Client)
			return hosttest.ErrorOf(connect.NewClient[echo.Text, echo.Text](client, host.URL+path).CallUnary(t.Context(), req))
		}
	}
	for name, tt := range map[string]struct {
		code connect.Code
		rate float64 // of requests
		ask  func(*testing.T, *hosttest.Host, *connectplugin.Client) error
	}{
		"too many requests":    {connect.CodeResourceExhausted, 1e-3, check},
		"a plugin of the host": {connect.CodeNotFound, 1e6, get("/connectplugin.admin.v1.AdminReadService/GetSnapshot")},
		"a type":               {connect.CodeNotFound, 1e6, get("/services/forbidden/-/a.B/C")},
		"a plugin of the host, on a connection of its own": {connect.CodeNotFound, 1e6, afresh("/connectplugin.admin.v1.AdminReadService/GetSnapshot")},
		"a capability": {connect.CodeNotFound, 1e6, func(t *testing.T, _ *hosttest.Host, c *connectplugin.Client) error {
			t.Helper()
			_, err := c.Capability(t.Context(), "forbidden", "")
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = hosttest.Rights(map[string][2][]string{"bad": {}, "good": {}})
				c.Admin = new(connectplugin.AdminConfig)
				c.Limits.RefusalBurst, c.Limits.RefusalsPerSecond = burst, perSecond
				c.Limits.RequestBurst, c.Limits.RequestsPerSecond = 8, tt.rate
			})
			bad, good := host.Enrol(t, "bad", nil), host.Enrol(t, "good", nil)
			hosttest.Eventually(t, "it is refused", func() bool { return connect.CodeOf(tt.ask(t, host, bad)) == tt.code })
			begun := time.Now()
			for range refused {
				if err := tt.ask(t, host, bad); connect.CodeOf(err) != tt.code {
					t.Fatal(err)
				}
			}
			if took := time.Since(begun); took < (refused-burst)*time.Second/perSecond/4 { // the last one waits for those before it
				t.Errorf("%d refusals within %v", refused, took)
			}
			for _, e := range host.Audit.Events() {
				if strings.Contains(e.Reason, "cut off") {
					t.Errorf("%s: %s", e.Kind, e.Reason)
				}
			}
			if told, _ := limitedOf(host, "(Limits.RefusalsPerSecond"); len(told) != 1 || told[0].SelfID != "bad" || told[0].Peer == "" {
				t.Errorf("that it waits: %+v", told)
			}
			if err := check(t, host, good); err != nil {
				t.Errorf("another plugin: %v", err)
			}
		})
	}
}

// reachBytes makes calls with large headers, which are paid for like any other bytes. What
// keeps the identity alive is not refused, and another one has an account of its own.
func reachBytes(t *testing.T, r *rig) {
	t.Helper()
	bad, good := r.Enrol(t, "registrar", nil), r.Enrol(t, "sibling", nil)
	check := func(c *connectplugin.Client) error {
		req := connect.NewRequest(&connectpluginv1.HealthCheckRequest{})
		req.Header().Set("X-Large", strings.Repeat("~", 4<<10))
		return hosttest.ErrorOf(connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), r.URL).Check(t.Context(), req))
	}
	meets(t, connect.CodeResourceExhausted, func(int) error {
		err := check(bad)
		if err != nil && (retryHint(err) <= 4*time.Second || !strings.Contains(err.Error(), "too many bytes")) {
			t.Errorf("%v: come again after %v, when it does not pay for the same call", err, retryHint(err))
		}
		return err
	})
	if err := bad.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		t.Errorf("a report of health: %v", err)
	}
	if err := check(good); err != nil {
		t.Errorf("another plugin: %v", err)
	}
}

// counted counts what could be written of an answer that never ends.
type counted struct{ written atomic.Int64 }

// ServeHTTP implements http.Handler.
func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	for some := make([]byte, 4<<10); r.Context().Err() == nil; {
		n, err := w.Write(some)
		c.written.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// reachUnread calls a provider and does not read what it answers.
func reachUnread(t *testing.T, r *rig) {
	t.Helper()
	const (
		inFlight = 64 << 10 // what the connection to the caller takes
		held     = 64 << 10 // by the host, for the call
		beside   = 32 << 10 // in the provider
	)
	pours := &counted{}
	provider := r.StartPlugin(t, "sibling", func(c *connectplugin.PluginServerConfig) {
		c.Client.Metadata.Provides = hosttest.Provides("type-0")
		c.Services = []connectplugin.PluginService{{Type: "type-0", Version: "1.0.0", Path: echo.Base, Handler: pours}}
	})
	caller := r.Enrol(t, "registrar", hosttest.Requiring("type-0"))
	ask(t, frames(t, r), r.Addr(), "/services/type-0/"+provider.Client.RuntimeID()+echo.Unary, caller)
	before, since := int64(0), time.Now()
	hosttest.Eventually(t, "the provider waits", func() bool {
		if now := pours.written.Load(); now != before || now == 0 {
			before, since = now, time.Now()
		}
		return time.Since(since) > hosttest.Moment
	})
	if before > inFlight+held+beside {
		t.Errorf("the provider could send %d KiB ahead", before>>10)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL+"/services/type-0/"+provider.Client.RuntimeID()+echo.Unary, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, http.Header{"Content-Type": {"application/octet-stream"}})
	resp, err := caller.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	some := make([]byte, 2<<20)
	for got := 0; got < len(some); {
		n, err := resp.Body.Read(some[got:])
		if got += n; err != nil {
			t.Fatalf("a call that reads gets %d KiB: %v", got>>10, err)
		}
	}
}
