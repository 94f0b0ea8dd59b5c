package headers_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/headers"
)

const (
	req  = headers.Request
	res  = headers.Response
	trl  = headers.Trailer
	all  = req | res | trl
	none = headers.Direction(0)
)

// verdicts is the table of the test and the seed of the fuzz target.
var verdicts = map[string]headers.Direction{
	// What an RPC needs.
	"Content-Type": req | res, "Content-Encoding": req | res, "Accept-Encoding": req | res, "Content-Length": res,
	"User-Agent": req, "X-User-Agent": req, "Te": req, "Accept": req, "Vary": res, "Date": res, "Retry-After": res, "Allow": res, "Accept-Post": res,
	"Connect-Protocol-Version": req, "Connect-Timeout-Ms": req, "Connect-Content-Encoding": req | res, "Connect-Accept-Encoding": req | res,
	"Grpc-Timeout": req, "Grpc-Encoding": req | res, "Grpc-Accept-Encoding": req | res,
	"Grpc-Status": res | trl, "Grpc-Message": res | trl, "Grpc-Status-Details-Bin": res | trl,
	"Traceparent": all, "Tracestate": all, "Baggage": all,
	// Metadata.
	"X-Custom-Header": all, "X-Test-Case-Name": all, "Request-Id": all, "X-Custom-Bin": all, "Tenant.region": all, "X_under_score": all,
	"Trailer-X-Custom": res, "Trailer-Grpc-Status": none,
	// Hop-by-hop and framing.
	"Connection": none, "Keep-Alive": none, "Proxy-Connection": none, "Transfer-Encoding": none, "Upgrade": none, "Trailer": none, "Http2-Settings": none,
	// Where a request comes from and goes to.
	"Host": none, "Origin": none, "Referer": none, "Forwarded": none, "Via": none, "X-Forwarded-For": none, "X-Forwarded-Host": none,
	"X-Forwarded-Client-Cert": none, "X-Real-Ip": none, "True-Client-Ip": none, "Cf-Connecting-Ip": none, "X-Original-Url": none, "X-Rewrite-Url": none,
	"X-Http-Method-Override": none, "Expect": none, "X-Envoy-Original-Path": none, "X-Accel-Redirect": none,
	// Credentials.
	"Authorization": none, "Proxy-Authorization": none, "Cookie": none, "Set-Cookie": none, "Www-Authenticate": none, "X-Api-Key": none,
	"X-Auth-Token": none, "X-Access-Token": none, "X-Db-Password": none, "X-Client-Secret": none, "X-Mysecret": none, "Trailer-Set-Cookie": none,
	"Client-Cert": none, "Dpop": none, "Signature": none,
	// What the host states.
	"X-Plugin-Caller-Id": none, "X-Plugin-Runtime-Id": none, "X-Plugin-Anything": none, "X_plugin_caller_id": none, "X-Plugin_runtime-Id": none,
	"Trailer-X-Plugin-Caller-Id": none,
	// What steers a client.
	"Location": none, "Alt-Svc": none, "Strict-Transport-Security": none, "Refresh": none, "Server": none, "Access-Control-Allow-Origin": none,
	"Content-Security-Policy": none, "Sec-Fetch-Site": none, "Link": none, "Clear-Site-Data": none,
	// What is no name, or not in canonical form.
	"": none, "content-type": none, "X-custom": none, "X Custom": none, "X-Custom:": none, "X-Cüstom": none, "X-Custom\r\nY": none, ":path": none,
	"Trailer-": none, "Trailer:Grpc-Status": none,
}

func TestAudit_PROTO53_FieldsPassByAllowList(t *testing.T) {
	t.Parallel()
	var rules headers.Rules
	for name, want := range verdicts {
		got := none
		for _, d := range []headers.Direction{req, res, trl} {
			if rules.Passes(d, name) {
				got |= d
			}
		}
		if got != want {
			t.Errorf("%q passes %03b, want %03b", name, got, want)
		}
	}
}

func TestReserved(t *testing.T) {
	t.Parallel()
	rules := headers.NewRules("x-company-KEY", "Grpc-Tags-Bin")
	for _, name := range []string{"X-Company-Key", "X_company_key", "Grpc-Tags-Bin"} {
		if rules.Passes(req, name) {
			t.Errorf("%s passes", name)
		}
	}
	if !rules.Passes(req, "X-Company-Keys") {
		t.Error("another name does not pass")
	}
}

func collect(d headers.Direction, src http.Header) http.Header {
	dst := http.Header{}
	new(headers.Rules).Each(d, src, func(name, value string) { dst[name] = append(dst[name], value) })
	return dst
}

func TestEach(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		src, want http.Header
	}{
		"several values": {src: http.Header{"X-A": {"1", "2"}}, want: http.Header{"X-A": {"1", "2"}}},
		"named by Connection": {
			src:  http.Header{"Connection": {"close, x-a", "X-B"}, "X-A": {"1"}, "X-B": {"2"}, "X-C": {"3"}},
			want: http.Header{"X-C": {"3"}},
		},
		"te":              {src: http.Header{"Te": {"trailers"}}, want: http.Header{"Te": {"trailers"}}},
		"te with codings": {src: http.Header{"Te": {"gzip, Trailers;q=0.5", "deflate, trailers"}}, want: http.Header{"Te": {"trailers"}}},
		"te without":      {src: http.Header{"Te": {"gzip"}}, want: http.Header{}},
		"forged line":     {src: http.Header{"X-A": {"ok", "a\r\nX-Plugin-Caller-Id: b", "a\nb", "a\x00b", "a\x7fb"}}, want: http.Header{"X-A": {"ok"}}},
		"not canonical":   {src: http.Header{"x-a": {"1"}, "AUTHORIZATION": {"Bearer x"}}, want: http.Header{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := collect(req, test.src)
			if len(got) != len(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			for key, values := range test.want {
				if !slices.Equal(got[key], values) {
					t.Errorf("%s: got %q, want %q", key, got[key], values)
				}
			}
		})
	}
}

func TestLower(t *testing.T) {
	t.Parallel()
	for name := range verdicts {
		if got, want := headers.Lower(name), strings.ToLower(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func BenchmarkEach(b *testing.B) {
	src := http.Header{
		"Content-Type": {"application/proto"}, "Connect-Protocol-Version": {"1"}, "User-Agent": {"connect-go/1.21.1 (go1.26)"}, "Accept-Encoding": {"gzip"},
		"Authorization": {"Bearer x"}, "X-Plugin-Runtime-Id": {"a-b"}, "Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		"X-Custom-Header": {"v"}, "Content-Length": {"256"},
	}
	rules := headers.NewRules()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		rules.Each(req, src, func(_, value string) { n += len(value) })
	}
}
