package edge_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// trailed answers with a trailer of about so many KiB as the message says.
func trailed(_ context.Context, req *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
	resp := connect.NewResponse(req.Msg)
	var n int
	if _, err := fmt.Sscan(req.Msg.GetValue(), &n); err != nil {
		return nil, err
	}
	for range n {
		resp.Trailer().Add("X-Large", strings.Repeat("~", 1<<10))
	}
	return resp, nil
}

// A trailer or a header of an answer that is larger than the host takes, or than its caller does, ends the call with
// resource_exhausted, which nobody asks for again, and the host's log names the field and the plugin.
func TestAudit_ATK14_AnswersWithTrailersThatAreTooLargeSaySo(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	rig := echo.NewRig(t, echo.Service{Unary: trailed}.Handler(), func(c *connectplugin.ServeConfig) {
		c.Limits.MaxHeaderBytes, c.Logger = 400<<10, slog.New(slog.NewTextHandler(&log, nil))
	})
	for name, opts := range map[string][]connect.ClientOption{"Connect": nil, "gRPC": {connect.WithGRPC()}} {
		for kib, want := range map[string]string{
			"200": "", "300": "larger than a client takes, which is 256 KiB", "500": "headers or trailers are too large",
		} {
			client := echo.NewClient(rig.ToProvider(), echo.Unary, opts...)
			resp, err := client.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String(kib)))
			switch {
			case want == "" && (err != nil || len(resp.Trailer()["X-Large"]) != 200):
				t.Errorf("%s, %s KiB: %v", name, kib, err)
			case want != "" && (connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), want)):
				t.Errorf("%s, %s KiB: %v", name, kib, err)
			}
		}
	}
	for line := range strings.SplitSeq(log.String(), "\n") {
		if strings.Contains(line, "a routed call failed") && strings.Contains(line, "self_id=provider ") && strings.Contains(line, "Limits.MaxHeaderBytes") {
			return
		}
	}
	t.Errorf("the log names neither: %s", log.String())
}

// A request whose trailer is larger than the host takes is reset, with a code that stands for resource_exhausted, instead of
// being served as if it had none. The audit says so, and its connection goes on.
func TestAudit_ATK14_ARequestWithATrailerThatIsTooLargeFailsAlone(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Policy = hosttest.LoggerPolicy() })
	c := host.Enrol(t, "api", hosttest.Requiring("logger"))
	f := frames(t, &rig{swellHost: &swellHost{Host: host}})
	head := headBlock(host.Addr(), connectpluginv1connect.HealthServiceCheckProcedure, [2]string{"content-type", "application/proto"},
		[2]string{"x-plugin-runtime-id", c.RuntimeID()}, [2]string{"authorization", "Bearer " + c.RuntimeToken()})
	for i, size := range []int{1 << 10, 40 << 10, 1 << 10} {
		id := uint32(2*i + 1)
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		var block bytes.Buffer
		_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "x-end", Value: strings.Repeat("a", size)})
		first := block.Bytes()[:min(block.Len(), 16<<10)]
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: true, EndHeaders: len(first) == block.Len()})
		if rest := block.Bytes()[len(first):]; err == nil && len(rest) > 0 {
			err = f.WriteContinuation(id, true, rest)
		}
		if err != nil {
			t.Fatal(err)
		}
		if size < 32<<10 {
			await(t, f, http2.FrameHeaders)
			continue
		}
		reset, _ := await(t, f, http2.FrameRSTStream).(*http2.RSTStreamFrame)
		if reset.StreamID != id || reset.ErrCode != http2.ErrCodeEnhanceYourCalm {
			t.Errorf("reset: %v", reset)
		}
	}
	events, n := limitedOf(host, "Limits.MaxHeaderBytes")
	if n != 1 || events[0].SelfID != "api" || events[0].Peer != "127.0.0.1" {
		t.Errorf("the audit has %v", events)
	}
}

// framesAt is a connection of frames to a plugin, which takes it for its host's.
func framesAt(t *testing.T, host *hosttest.Host, addr string) *http2.Framer {
	t.Helper()
	own, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	d := tls.Dialer{Config: &tls.Config{
		RootCAs: host.Authority.CertPool(), ServerName: "127.0.0.1", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, // a plugin's certificate has no name
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return own.GetCertificate(&tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}})
		},
	}}
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(hosttest.Wait))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f
}

// A plugin's own server refuses headers that are too large in the words and the protocol of the host's.
func TestAudit_ATK14_APluginRefusesLargeHeadersAsAHostDoes(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	l := hosttest.Listen(t)
	host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Listener = l
		c.Services = []connectplugin.PluginService{{Type: "logger", Version: "1.0.0", Path: "/a.v1.A/", Handler: http.NotFoundHandler()}}
	})
	f := framesAt(t, host, l.Addr().String())
	const text = "headers or trailers are too large"
	long := [2]string{"x-long", strings.Repeat("~", 40<<10)}
	for i, tt := range []struct{ content, status, body, grpc string }{
		{"application/proto", "431", text, ""},
		{"application/connect+proto", "200", text, ""},
		{"application/grpc", "200", "", text},
		{"text/plain", "431", text, ""},
	} {
		answer, body := frameHead(t, f, uint32(2*i+1), [2]string{"content-type", tt.content}, long)
		if answer[":status"] != tt.status || !strings.Contains(body, tt.body) || answer["grpc-message"] != tt.grpc {
			t.Errorf("%s: %v %q", tt.content, answer, body)
		}
	}
}

// Where a plugin has no endpoint the log says which entry of the policy gives it one, and its caller learns nothing of it.
func TestAudit_ATK14_TheLogNamesThePluginThatHasNoEndpoint(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"nowhere": {{"type-0"}}, "caller": {nil, {"type-0"}}})
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	provider := host.Enrol(t, "nowhere", hosttest.Providing("type-0"))
	if _, err := hosttest.Register(t, provider, "type-0", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	caller := host.Enrol(t, "caller", hosttest.Requiring("type-0"))
	at := echo.At(host.URL+"/services/type-0/"+provider.RuntimeID(), caller.HTTPClient())
	out := echo.CallUnary(t.Context(), at, nil, nil)
	if connect.CodeOf(out.Err) != connect.CodeUnavailable || strings.Contains(out.Err.Error(), "olicy") || strings.Contains(out.Err.Error(), "endpoint") {
		t.Errorf("the caller gets %v", out.Err)
	}
	for range 7 {
		_ = echo.CallUnary(t.Context(), at, nil, nil)
	}
	host.Stop(t)
	text := log.String()
	if !strings.Contains(text, `no endpoint: set Policy.Plugins[\"nowhere\"].Endpoint or .AllowOwnAddress`) || !strings.Contains(text, "self_id=nowhere") {
		t.Error(text)
	}
	if n := strings.Count(text, "a routed call failed"); n != 1 || !strings.Contains(text, "count=7") {
		t.Errorf("of 8 calls %d are logged, and it does not say so of the others: %s", n, text)
	}
}

// Lines that the log of a plugin leaves out are counted in the next one, whoever that is about, and at the end.
func TestAudit_ATK14_TheLogOfAPluginSaysHowMuchItLeavesOut(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	l := hosttest.Listen(t)
	plugin := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Listener, c.Client.Logger = l, slog.New(slog.NewTextHandler(&log, nil))
	})
	for _, from := range []string{"127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.2"} {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	plugin.Stop(t)
	text := log.String()
	told := 0
	for line := range strings.SplitSeq(text, "\n") {
		var more int
		if _, after, ok := strings.Cut(line, "not_logged="); ok {
			_, _ = fmt.Sscan(after, &more)
		}
		if told += more; strings.Contains(line, "TLS failed") {
			told++
			if strings.Contains(line, "127.0.0.2") && more == 0 {
				t.Errorf("it says nothing of those before: %s", line)
			}
		}
	}
	if strings.Count(text, "TLS failed") != 2 || told < 7 || !strings.Contains(text, "lines were left out of the log") {
		t.Errorf("%d lines are told of: %s", told, text)
	}
}

// A bomb for a handler of the user's, which bounds its messages by itself or does not, is refused with its code once.
func TestAudit_ATK14_ABombForAHandlerOfTheUsersHasItsCodeOnce(t *testing.T) {
	t.Parallel()
	const most = 300 << 10
	r := newRig(t, func(l *connectplugin.Limits) { l.MaxDecompressedBytes = most }, nil)
	places := r.call(t)
	own := r.StartPlugin(t, "registrar", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{{Type: "some", Version: "1.0.0", Path: echo.Base, Handler: connect.NewUnaryHandler(
			echo.Unary, func(_ context.Context, req *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
				return connect.NewResponse(req.Msg), nil
			}, connect.WithReadMaxBytes(most),
		)}}
	})
	sibling := r.Enrol(t, "sibling", hosttest.Requiring("some"))
	places["a plugin"] = echo.Place{
		URL: r.URL + "/services/some/" + own.Client.RuntimeID(), Header: hosttest.IdentityHeader(sibling.RuntimeID(), sibling.RuntimeToken()),
	}
	for where, place := range places {
		for name, opts := range map[string][]connect.ClientOption{"Connect": nil, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()}} {
			req := connect.NewRequest(wrapperspb.String(strings.Repeat("a", 3*most)))
			maps.Copy(req.Header(), place.Header)
			opts = append(opts, connect.WithSendGzip())
			_, err := echo.NewClient(echo.At(place.URL, r.Stranger(t)), echo.Unary, opts...).CallUnary(t.Context(), req)
			if connect.CodeOf(err) != connect.CodeResourceExhausted || strings.Count(err.Error(), "resource_exhausted") != 1 {
				t.Errorf("%s, %s: %v", where, name, err)
			}
		}
	}
}
