package edge_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// limitedOf are the events of bounds that name a field, with how many requests they stand for together.
func limitedOf(host *hosttest.Host, field string) (events []connectplugin.AuditEvent, stands int) {
	for _, e := range host.Audit.Events() {
		if e.Kind == connectplugin.AuditLimited && strings.Contains(e.Reason, field) {
			events, stands = append(events, e), stands+max(e.Count, 1)
		}
	}
	return events, stands
}

// What is too large or too slow is in the audit, in whatever protocol it comes: the first time at once, with the field,
// who it was and from where, and from then on as a number.
func TestAudit_ATK14_WhatIsTooLargeOrTooSlowIsToldAndCounted(t *testing.T) {
	t.Parallel()
	const many = 12
	discover, watch := connectpluginv1connect.ServiceRegistryDiscoverServiceProcedure, connectpluginv1connect.HealthServiceWatchProcedure
	large, bomb := noise(64<<10), gzipOf(t, make([]byte, 4<<20))
	ways := map[string]struct{ content, encoding string }{
		"Connect": {"application/proto", "Content-Encoding"}, "gRPC": {"application/grpc+proto", "Grpc-Encoding"},
		"gRPC-Web": {"application/grpc-web+proto", "Grpc-Encoding"},
	}
	for name, tt := range map[string]struct {
		field, path string
		message     []byte
		gzip        bool
		stranger    bool
	}{
		"a message":         {"Limits.MaxMessageBytes", discover, large, false, false},
		"a message, gzip":   {"Limits.MaxMessageBytes", discover, bomb, true, false},
		"a handshake":       {"Limits.MaxHandshakeBytes", handshakeProc, large, false, true},
		"a handshake, gzip": {"Limits.MaxHandshakeBytes", handshakeProc, bomb, true, true},
		"a watch":           {"Limits.MaxMessageBytes", watch, large, false, false},
		"slow":              {"Limits.BodyTimeout", discover, nil, false, false},
	} {
		for protocol, way := range ways {
			t.Run(name+", "+protocol, func(t *testing.T) {
				t.Parallel()
				host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
					c.Policy = hosttest.LoggerPolicy()
					c.Limits.MaxMessageBytes, c.Limits.MaxHandshakeBytes = 8<<10, 8<<10
					if tt.message == nil {
						c.Limits.BodyTimeout = 300 * time.Millisecond
					}
				})
				c := host.Enrol(t, "api", hosttest.Requiring("logger"))
				header := http.Header{"Content-Type": {way.content}}
				if tt.path == watch && protocol == "Connect" {
					header.Set("Content-Type", "application/connect+proto")
				}
				flags, client := byte(0), connect.HTTPClient(host.Stranger(t))
				if tt.gzip {
					header.Set(way.encoding, "gzip")
					flags = 1
				}
				if !tt.stranger {
					client = c.HTTPClient()
				}
				for range many {
					body := enveloped(header.Get("Content-Type"), flags, tt.message)
					if tt.message != nil {
						if answer := post(t, client, host.URL+tt.path, header.Clone(), body); !says(answer, connect.CodeResourceExhausted) {
							t.Fatal(answer)
						}
						continue
					}
					s := stick(t, client, host.URL+tt.path, header.Clone(), []byte{0})
					if answer := hosttest.Arrival(t, s.answer); !says(answer, connect.CodeDeadlineExceeded) {
						t.Fatal(answer)
					}
				}
				events, _ := limitedOf(host, tt.field)
				if len(events) != 1 || events[0].Peer != "127.0.0.1" || events[0].Procedure != tt.path {
					t.Fatalf("%d times: %v", many, events)
				}
				if want := map[bool]string{false: "api"}[tt.stranger]; events[0].SelfID != want {
					t.Errorf("it is by %q, want %q", events[0].SelfID, want)
				}
				host.Stop(t) // which says what was counted
				if events, stands := limitedOf(host, tt.field); stands != many || len(events) != 2 {
					t.Errorf("%d are told as %d: %v", many, stands, events)
				}
			})
		}
	}
}

// frameHead sends the head of a request, whatever its length, and returns its answer: the fields and the body.
func frameHead(t *testing.T, f *http2.Framer, id uint32, fields ...[2]string) (map[string]string, string) {
	t.Helper()
	const piece = 16 << 10
	for i, block := 0, headBlock("127.0.0.1", handshakeProc, fields...); i < len(block); i += piece {
		part, last := block[i:min(i+piece, len(block))], i+piece >= len(block)
		var err error
		if i == 0 {
			err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: part, EndHeaders: last, EndStream: true})
		} else {
			err = f.WriteContinuation(id, last, part)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	answer, body := map[string]string{}, ""
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			t.Fatalf("the connection ends: %s, %q", frame.ErrCode, frame.DebugData())
		case *http2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				answer[field.Name] = field.Value
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			body += string(frame.Data())
			ended = frame.StreamEnded()
		}
		if ended && frame.Header().StreamID == id {
			return answer, body
		}
	}
}

// Headers that are too large fail alone, in the protocol of their request: one that is longer than all may be, or
// thousands; and the connection serves others after it. The audit says so, once.
func TestAudit_ATK14_HeadersThatAreTooLargeFailAlone(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Hosts = hosttest.LoggerPolicy(), []string{"127.0.0.1"}
	})
	r := &rig{swellHost: &swellHost{Host: host}}
	long := map[string][][2]string{
		"one field":    {{"x-long", strings.Repeat("~", 60<<10)}},
		"a short one":  {{"x-long", strings.Repeat("a", 40<<10)}},
		"a name":       {{strings.Repeat("x", 60<<10), "v"}},
		"2,000 fields": slices.Repeat([][2]string{{"x-some", "value"}}, 2000),
	}
	says := map[string]func(answer map[string]string, body string) bool{
		"application/proto": func(answer map[string]string, body string) bool {
			return answer[":status"] == "431" && strings.Contains(body, `"code":"resource_exhausted"`)
		},
		"application/connect+proto": func(answer map[string]string, body string) bool {
			return answer[":status"] == "200" && strings.Contains(body, `"code":"resource_exhausted"`)
		},
		"application/grpc": func(answer map[string]string, _ string) bool {
			return answer[":status"] == "200" && answer["grpc-status"] == "8"
		},
		"application/grpc-web+proto": func(answer map[string]string, body string) bool {
			return answer[":status"] == "200" && (answer["grpc-status"] == "8" || strings.Contains(body, "grpc-status: 8"))
		},
		"text/plain": func(answer map[string]string, _ string) bool { return answer[":status"] == "431" },
	}
	many := 0
	for content, ok := range says {
		for name, fields := range long {
			f, id := frames(t, r), uint32(1) // too much of all that on one is cut off
			f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			for _, first := range []bool{true, false} {
				typed := [][2]string{{"content-type", content}}
				all := slices.Concat(typed, fields)
				if !first {
					all = slices.Concat(fields, typed)
				}
				if answer, body := frameHead(t, f, id, all...); !ok(answer, body) {
					t.Errorf("%s, %s, the type comes first %t: %v %q", content, name, first, answer, body)
				}
				if answer, _ := frameHead(t, f, id+2, [2]string{"content-type", content}); answer[":status"] == "431" {
					t.Errorf("after that: %v", answer)
				}
				id, many = id+4, many+1
			}
		}
	}
	host.Stop(t)
	if events, stands := limitedOf(host, "Limits.MaxHeaderBytes"); stands != many || len(events) != 2 || events[0].Peer != "127.0.0.1" {
		t.Errorf("%d are told as %d: %v", many, stands, events)
	}
}

// Whoever sends a header block without end is cut off for that, and the audit says so.
func TestAudit_ATK14_HeadersWithoutEndAreCutOff(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Policy = hosttest.LoggerPolicy() })
	f := frames(t, &rig{swellHost: &swellHost{Host: host}})
	endless := []byte{0x00, 0x01, 'a', 0x7f, 0xff, 0xff, 0xff, 0x7f} // the beginning of a value that is not in the table
	block := append(headBlock(host.Addr(), handshakeProc), endless...)
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block})
	for i := 0; err == nil && i < 17; i++ {
		err = f.WriteContinuation(1, false, make([]byte, 16<<10))
	}
	away, _ := await(t, f, http2.FrameGoAway).(*http2.GoAwayFrame)
	if got := string(away.DebugData()); !strings.Contains(got, "too many bytes of one header block") {
		t.Errorf("cut off for %q", got)
	}
	hosttest.Eventually(t, "the audit names the field", func() bool { _, n := limitedOf(host, "Limits.MaxHeaderBytes"); return n == 1 })
}

// A connection that is cut off, and one that ends while it is begun, is in the audit with the field and with who it was.
func TestAudit_ATK14_CutOffsSayWhomAndWhatFor(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		c.Limits.PingBurst, c.Limits.PingsPerSecond, c.Limits.ReadHeaderTimeout = 3, 1e-6, 2*time.Second
	})
	c := host.Enrol(t, "api", hosttest.Requiring("logger"))
	f := frames(t, &rig{swellHost: &swellHost{Host: host}})
	block := headBlock(host.Addr(), connectpluginv1connect.HealthServiceCheckProcedure, [2]string{"content-type", "application/proto"},
		[2]string{"x-plugin-runtime-id", c.RuntimeID()}, [2]string{"authorization", "Bearer " + c.RuntimeToken()})
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	await(t, f, http2.FrameHeaders)
	for range 20 {
		_ = f.WritePing(false, [8]byte{})
	}
	await(t, f, http2.FrameGoAway)
	hosttest.Eventually(t, "the audit says who was cut off for PINGs", func() bool {
		events, _ := limitedOf(host, "Limits.PingsPerSecond")
		return len(events) == 1 && events[0].SelfID == "api" && events[0].RuntimeID == c.RuntimeID() && events[0].Peer == "127.0.0.1"
	})
	silent, err := net.Dial("tcp", host.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	hosttest.Eventually(t, "the audit has the TLS handshake that never came", func() bool {
		events, _ := limitedOf(host, "Limits.ReadHeaderTimeout")
		return len(events) == 1 && events[0].Peer == "127.0.0.1"
	})
}

// A watch that is refused for now says when to come again, in whatever protocol it is asked for.
func TestAudit_ATK14_ARefusedWatchSaysWhenToComeAgain(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]connect.ClientOption{
		"Connect": nil, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy, c.Limits.MaxWatchesPerPlugin = hosttest.LoggerPolicy(), 1
			})
			c := host.Enrol(t, "api", hosttest.Requiring("logger"))
			open := func() error {
				client := connectpluginv1connect.NewServiceRegistryClient(c.HTTPClient(), host.URL, opts...)
				stream, err := client.WatchService(t.Context(), connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "logger"}))
				if err != nil {
					return err
				}
				t.Cleanup(func() { _ = stream.Close() })
				if stream.Receive() {
					return nil
				}
				return stream.Err()
			}
			if err := open(); err != nil {
				t.Fatal(err)
			}
			if err := open(); connect.CodeOf(err) != connect.CodeResourceExhausted || retryHint(err) <= 0 {
				t.Errorf("a watch too many: %v, come again after %v", err, retryHint(err))
			}
		})
	}
}

// What the log leaves out since it goes on and on is counted there.
func TestAudit_ATK14_TheLogSaysHowMuchItLeavesOut(t *testing.T) {
	t.Parallel()
	const failures = 7
	var log hosttest.Buffer
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Logger = hosttest.LoggerPolicy(), slog.New(slog.NewTextHandler(&log, nil))
	})
	for range failures {
		conn, err := net.Dial("tcp", host.Addr())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	host.Stop(t)
	text := log.String()
	if strings.Count(text, "TLS failed") != 1 || !strings.Contains(text, "lines were left out of the log") {
		t.Error(text)
	}
	_, after, _ := strings.Cut(text, "lines were left out of the log")
	_, after, _ = strings.Cut(after, "not_logged=")
	if n, err := strconv.Atoi(strings.Fields(after + " none")[0]); err != nil || n < failures-1 {
		t.Errorf("%d lines were left out: %s", n, text)
	}
}

// The log says whose certificate has expired, where an authority of ours made it, and repeats nothing that anybody
// could have written into one of his own.
func TestAudit_ATK14_TheLogSaysWhoseCertificateExpired(t *testing.T) {
	t.Parallel()
	ca, other := hosttest.NewCA(t), hosttest.NewCA(t)
	since := func(ago time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-ago), time.Now().Add(-ago+time.Minute)
		}
	}
	for name, tt := range map[string]struct {
		by    *hosttest.CA
		named string
		ago   time.Duration
		want  bool
	}{
		"ours":                     {ca, "plugin-one", 30 * time.Minute, true},
		"before the authority was": {ca, "plugin-one", 3 * time.Hour, true},
		"in the future":            {ca, "plugin-one", -30 * time.Minute, true},
		"forged":                   {other, "plugin-one", 30 * time.Minute, false},
		"escaped":                  {ca, "plugin\none", 30 * time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log hosttest.Buffer
			host := ca.Start(t, ca.Certify(t, hosttest.Loopback), func(c *connectplugin.ServeConfig) {
				c.Policy, c.Logger = hosttest.LoggerPolicy(), slog.New(slog.NewTextHandler(&log, nil))
			})
			cfg := ca.TLS(tt.by.Certify(t, since(tt.ago), func(c *x509.Certificate) { c.Subject.CommonName = tt.named }))
			conn, err := tls.Dial("tcp", host.Addr(), cfg)
			if err == nil {
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
			hosttest.Eventually(t, "the log has it", func() bool { return strings.Contains(log.String(), "TLS failed") })
			text := log.String()
			if got := strings.Contains(text, "has expired or is not valid yet; renew it"); got != tt.want || strings.Contains(text, "plugin\none") {
				t.Errorf("it says whose: %t, want %t: %s", got, tt.want, text)
			}
			if tt.want && !strings.Contains(text, "plugin") {
				t.Error(text)
			}
		})
	}
}

// With an Authority it says so, too, and of each plugin of one machine.
func TestAudit_ATK14_TheLogSaysWhoseCertificateOfAnAuthorityExpired(t *testing.T) {
	t.Parallel()
	dir, plugins, expired := filepath.Join(t.TempDir(), "authority"), []string{"one", "two"}, map[string]*tls.Certificate{}
	synctest.Test(t, func(t *testing.T) { // in the year 2000
		century, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: dir, TrustDomain: "example.org", CATTL: 100 * 365 * 24 * time.Hour})
		for _, plugin := range plugins {
			var cfg *tls.Config
			if err == nil {
				cfg, err = century.PluginTLS(plugin)
			}
			if err != nil {
				t.Fatal(err)
			}
			expired[plugin], err = cfg.GetClientCertificate(new(tls.CertificateRequestInfo))
		}
	})
	authority, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var log hosttest.Buffer
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.Policy, c.Logger = authority, hosttest.LoggerPolicy(), slog.New(slog.NewTextHandler(&log, nil))
	})
	for range 2 {
		for _, plugin := range plugins {
			cfg := authority.ClientTLS()
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return expired[plugin], nil }
			conn, err := tls.Dial("tcp", host.Addr(), cfg)
			if err == nil {
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
			hosttest.Eventually(t, "the log has it", func() bool {
				return strings.Contains(log.String(), authority.PluginIdentity(plugin)+`\" has expired or is not valid yet; renew it`)
			})
		}
	}
	host.Stop(t)
	if n := strings.Count(log.String(), "TLS failed"); n != 2 {
		t.Errorf("%d lines: %s", n, log.String())
	}
}

// elsewhere is a listener whose connections come from an address.
type elsewhere struct {
	net.Listener

	from net.Addr
}

func (l elsewhere) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return movedConn{c, l.from}, err
}

type movedConn struct {
	net.Conn

	from net.Addr
}

func (c movedConn) RemoteAddr() net.Addr { return c.from }

// Every event has the address of who it is about, also of an identity that is issued, renewed and ends.
func TestAudit_ATK14_EventsHaveTheAddress(t *testing.T) {
	t.Parallel()
	const from = "2001:db8::1:2"
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Unproven("one")))
	l := hosttest.Listen(t)
	served := make(chan error, 1)
	go func() {
		served <- host.Serve(context.Background(), elsewhere{l, &net.TCPAddr{IP: net.ParseIP(from), Port: 7}})
	}()
	client := connectpluginv1connect.NewHandshakeServiceClient(host.Stranger(t), "https://"+l.Addr().String())
	resp, err := client.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("one")))
	if err != nil {
		t.Fatal(err)
	}
	again := hosttest.WithCredentials(hosttest.OldRequest("one"), resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken())
	if _, err := client.Handshake(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	host.RevokeSelf("one")
	host.Stop(t)
	hosttest.Arrival(t, served)
	seen := map[connectplugin.AuditKind]bool{}
	for _, e := range host.Audit.Events() {
		seen[e.Kind] = true
		if e.RuntimeID == resp.Msg.GetRuntimeId() && e.Peer != from {
			t.Errorf("%s of %q, want %s", e.Kind, e.Peer, from)
		}
	}
	for _, kind := range []connectplugin.AuditKind{connectplugin.AuditIssued, connectplugin.AuditRenewed, connectplugin.AuditEnded} {
		if !seen[kind] {
			t.Errorf("there is no event %s", kind)
		}
	}
}

// A client that has a transport of its own is told of headers that are too large as any other.
func TestAudit_ATK14_AForeignTransportIsToldOfLargeHeaders(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	cfg, err := host.Authority.PluginTLS("api")
	if err != nil {
		t.Fatal(err)
	}
	own, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: host.URL, SelfID: "api", Secret: hosttest.Secret, HTTPClient: hosttest.HTTPClient(t, cfg), Logger: hosttest.Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	if err := own.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, opts := range map[string][]connect.ClientOption{"Connect": nil, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()}} {
		req := connect.NewRequest(&connectpluginv1.HealthCheckRequest{})
		req.Header().Set("X-Long", strings.Repeat("x", 40<<10))
		_, err := connectpluginv1connect.NewHealthServiceClient(own.HTTPClient(), host.URL, opts...).Check(t.Context(), req)
		if connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "Limits.MaxHeaderBytes") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
