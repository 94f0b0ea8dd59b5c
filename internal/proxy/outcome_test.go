package proxy_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

func gzipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

// outcomeCases are responses and the codes that they say.
var outcomeCases = []struct {
	name    string
	status  int
	header  map[string]string
	body    string
	trailer map[string]string
	want    uint32
}{
	{name: "unary", status: 200, header: map[string]string{"Content-Type": "application/proto"}, body: `{"code":"internal"}`},
	{name: "unary error", status: 404, header: map[string]string{"Content-Type": "application/json"}, body: `{"code":"not_found","message":"x"}`, want: 5},
	{name: "unary error, code last", status: 500, header: map[string]string{"Content-Type": "application/json; charset=utf-8"}, body: `{"details":[{"a":{"code":"x"}}],"message":"code","code":"data_loss"}`, want: 15},
	{name: "unary error, compressed", status: 400, header: map[string]string{"Content-Type": "application/json", "Content-Encoding": "gzip"}, body: gzipped(`{"code":"out_of_range"}`), want: 11},
	{name: "unary error, compressed unknown", status: 403, header: map[string]string{"Content-Type": "application/json", "Content-Encoding": "br"}, body: "\x1b\x00", want: 7},
	{name: "unary error, no code", status: 401, header: map[string]string{"Content-Type": "application/json"}, body: `{"message":"x"}`, want: 16},
	{name: "unary error, a code that is none", status: 503, header: map[string]string{"Content-Type": "application/json"}, body: `{"code":"ok"}`, want: 14},
	{name: "unary error, an empty code", status: 503, header: map[string]string{"Content-Type": "application/json"}, body: `{"code":""}`, want: 14},
	{name: "unary error, a number", status: 429, header: map[string]string{"Content-Type": "application/json"}, body: `{"code":5}`, want: 14},
	{name: "unary error, cut off", status: 504, header: map[string]string{"Content-Type": "application/json"}, body: `{"mess`, want: 14},
	{name: "unary error, long", status: 500, header: map[string]string{"Content-Type": "application/json"}, body: `{"code":"aborted","message":"` + strings.Repeat("x", 1<<16) + `"}`, want: 10},
	{name: "no RPC", status: 404, header: map[string]string{"Content-Type": "text/plain"}, body: `{"code":"internal"}`, want: 12},
	{name: "no RPC, fine", status: 204},
	{name: "no RPC, bad request", status: 400, want: 13},
	{name: "no RPC, odd", status: 418, want: 2},

	{name: "gRPC", status: 200, header: map[string]string{"Content-Type": "application/grpc+proto"}, trailer: map[string]string{"grpc-status": "0"}},
	{name: "gRPC error", status: 200, header: map[string]string{"Content-Type": "application/grpc"}, body: "\x00\x00\x00\x00\x00", trailer: map[string]string{"grpc-status": "9", "grpc-message": "0"}, want: 9},
	{name: "gRPC, trailers only", status: 200, header: map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "7"}, want: 7},
	{name: "gRPC, not a code", status: 200, header: map[string]string{"Content-Type": "application/grpc"}, trailer: map[string]string{"Grpc-Status": "17"}, want: 2},
	{name: "gRPC, not a number", status: 200, header: map[string]string{"Content-Type": "application/grpc"}, trailer: map[string]string{"Grpc-Status": "-1"}, want: 2},
	{name: "gRPC, no status", status: 200, header: map[string]string{"Content-Type": "application/grpc"}, want: 2},
	{name: "gRPC, from a proxy", status: 502, header: map[string]string{"Content-Type": "application/grpc"}, want: 14},

	{name: "gRPC-Web", status: 200, header: map[string]string{"Content-Type": "application/grpc-web+proto"}, body: envelope(0, "grpc-status: 4\r\n") + envelope(0x80, "grpc-status: 0\r\n")},
	{name: "gRPC-Web error", status: 200, header: map[string]string{"Content-Type": "application/grpc-web"}, body: envelope(0, "m") + envelope(0x80, "x: grpc-status: 1\r\nGrpc-Status:3\r\n"), want: 3},
	{name: "gRPC-Web, compressed", status: 200, header: map[string]string{"Content-Type": "application/grpc-web", "Grpc-Encoding": "gzip"}, body: envelope(0x81, gzipped("grpc-status: 6\r\n")), want: 6},
	{name: "gRPC-Web, trailers only", status: 200, header: map[string]string{"Content-Type": "application/grpc-web", "Grpc-Status": "5"}, want: 5},
	{name: "gRPC-Web, no end", status: 200, header: map[string]string{"Content-Type": "application/grpc-web"}, body: envelope(0, "grpc-status: 3\r\n"), want: 2},
	{name: "gRPC-Web, HTTP trailers do not count", status: 200, header: map[string]string{"Content-Type": "application/grpc-web"}, trailer: map[string]string{"Grpc-Status": "0"}, want: 2},

	{name: "stream", status: 200, header: map[string]string{"Content-Type": "application/connect+proto"}, body: envelope(0, `{"error":{"code":"internal"}}`) + envelope(2, "{}")},
	{name: "gRPC's answer to Connect", status: 415, header: map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "3"}, want: 2},
	{name: "stream, metadata", status: 200, header: map[string]string{"Content-Type": "application/connect+json"}, body: envelope(2, `{"metadata":{"error":["x"],"code":["y"]}}`)},
	{name: "stream error", status: 200, header: map[string]string{"Content-Type": "application/connect+json"}, body: envelope(2, `{"metadata":{"a":["b"]},"error":{"message":"m","code":"canceled"}}`), want: 1},
	{name: "stream error, compressed", status: 200, header: map[string]string{"Content-Type": "application/connect+proto", "Connect-Content-Encoding": "gzip"}, body: envelope(0, "m") + envelope(3, gzipped(`{"error":{"code":"resource_exhausted"}}`)), want: 8},
	{name: "stream, compressed unknown", status: 200, header: map[string]string{"Content-Type": "application/connect+proto", "Connect-Content-Encoding": "zstd"}, body: envelope(3, "???"), want: 2},
	{name: "stream error, long", status: 200, header: map[string]string{"Content-Type": "application/connect+proto"}, body: envelope(2, `{"error":{"code":"already_exists","message":"`+strings.Repeat("x", 1<<16)+`"}}`), want: 6},
	{name: "stream, a bomb", status: 200, header: map[string]string{"Content-Type": "application/connect+proto", "Connect-Content-Encoding": "gzip"}, body: envelope(3, gzipped(strings.Repeat(" ", 1<<20)+`{}`)), want: 2},
	{name: "stream, no end", status: 200, header: map[string]string{"Content-Type": "application/connect+proto"}, body: envelope(0, "{}"), want: 2},
	{name: "stream, end cut off", status: 200, header: map[string]string{"Content-Type": "application/connect+proto"}, body: envelope(2, `{"metadata":{`), want: 2},
}

// TestOutcomeReadsTheCode has each response arrive in one piece and byte by byte.
func TestOutcomeReadsTheCode(t *testing.T) {
	t.Parallel()

	for _, c := range outcomeCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			var o proxy.Outcome

			for _, size := range []int{1, 3, 1 << 20} {
				o.Reset()

				header := http.Header{}
				for name, value := range c.header {
					header.Set(name, value)
				}

				o.Head(c.status, header)

				for rest := []byte(c.body); len(rest) > 0; {
					n := min(size, len(rest))
					o.Body(rest[:n])
					rest = rest[n:]
				}

				for name, value := range c.trailer {
					o.Trailer(name, value)
				}

				if got := o.Code(); got != c.want || o.ResponseBytes != int64(len(c.body)) {
					t.Errorf("in pieces of %d: code %d, want %d; %d bytes", size, got, c.want, o.ResponseBytes)
				}
			}
		})
	}
}

// FuzzOutcome shows that no response breaks it.
func FuzzOutcome(f *testing.F) {
	for _, c := range outcomeCases {
		f.Add(c.status, c.header["Content-Type"], c.header["Connect-Content-Encoding"], c.body)
	}

	f.Fuzz(func(t *testing.T, status int, contentType, encoding, body string) {
		var o proxy.Outcome

		o.Head(status, http.Header{"Content-Type": {contentType}, "Connect-Content-Encoding": {encoding}})
		o.Body([]byte(body))

		if code := o.Code(); code > 16 {
			t.Errorf("code %d", code)
		}
	})
}

// TestForwardCountsAndReads looks at what passes through a provider on the network and at one
// in this process.
func TestForwardCountsAndReads(t *testing.T) {
	t.Parallel()

	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()

		outcome := &proxy.Outcome{}
		g := newRig(t, rigConfig{
			memory: memory,
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
				w.Header().Set(http.TrailerPrefix+"Grpc-Status", "9")
				readAllEcho(w, r)
			},
			call: func(r *http.Request, c *proxy.Call) *http.Request {
				c.Outcome = outcome
				return r
			},
		})

		for _, length := range []int{100, 200 << 10} { // sent as a whole, and as it comes
			body := envelope(0, strings.Repeat("x", length))
			g.post(t, grpcType, strings.NewReader(body))
			g.wantClass(t, proxy.ClassOK)

			if outcome.Code() != 9 || outcome.RequestBytes != int64(len(body)) || outcome.ResponseBytes != int64(len(body)) || outcome.Began.IsZero() {
				t.Errorf("%d bytes: code %d, %d and %d bytes, began %v", len(body), outcome.Code(), outcome.RequestBytes, outcome.ResponseBytes, outcome.Began)
			}
		}
	})
}
