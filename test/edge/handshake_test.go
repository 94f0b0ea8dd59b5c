package edge_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

const handshakeProc = connectpluginv1connect.HandshakeServiceHandshakeProcedure

// handshakeWays are the ways to send a handshake in the binary encoding.
var handshakeWays = []struct{ contentType, header string }{
	{"application/proto", "Content-Encoding"}, {"application/grpc", "Grpc-Encoding"}, {"application/grpc-web+proto", "Grpc-Encoding"},
}

func unprovenHost(t *testing.T, edit func(*connectplugin.ServeConfig)) *hosttest.Host {
	t.Helper()
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Logger = hosttest.Unproven("plugin"), nil
		c.Limits.MaxIdentitiesPerSelfID = 10_000
		if edit != nil {
			edit(c)
		}
	})
}

// A handshake is refused before it is decoded, for its size and for what is in it, however
// it is sent, and costs little memory; an honest one passes in every way.
func TestAudit_ATK03_HandshakesAreBoundedBeforeTheyAreDecoded(t *testing.T) {
	host := unprovenHost(t, nil)
	client := host.Stranger(t)
	honest := hosttest.OldRequest("plugin")
	honest.ClientMetadata = map[string]string{}
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"} {
		honest.ClientMetadata[key] = strings.Repeat("x", connectplugin.MaxMetadataValueLen)
	}
	field := func(number protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	const entries = 40_000
	messages := map[string]struct {
		body []byte
		want connect.Code
	}{
		"honest":           {hosttest.MustMarshal(t, honest), 0},
		"provides":         {bytes.Repeat(field(15, ""), entries), connect.CodeInvalidArgument},
		"requires":         {bytes.Repeat(field(16, ""), entries), connect.CodeInvalidArgument},
		"plugins":          {bytes.Repeat(field(5, ""), entries), connect.CodeInvalidArgument},
		"metadata, one":    {bytes.Repeat(field(6, ""), entries), connect.CodeInvalidArgument},
		"self ids":         {bytes.Repeat(field(10, ""), entries), connect.CodeInvalidArgument},
		"unknown fields":   {bytes.Repeat(field(99, ""), entries), connect.CodeInvalidArgument},
		"a long self id":   {field(10, strings.Repeat("a", 64<<10)), connect.CodeInvalidArgument},
		"a megabyte of it": {bytes.Repeat(field(15, ""), 512<<10), connect.CodeInvalidArgument},
		"as it may not be": {field(99, strings.Repeat("a", 97<<10)), connect.CodeResourceExhausted},
	}
	for name, m := range messages {
		for _, way := range handshakeWays {
			for _, encoding := range []string{"identity", "gzip"} {
				body, flags, want := m.body, byte(0), m.want
				if encoding == "gzip" {
					body, flags = gzipOf(t, body), 1
					if len(m.body) > 96<<10 {
						want = connect.CodeResourceExhausted
					}
				}
				before := hosttest.Allocated()
				header := http.Header{"Content-Type": {way.contentType}, way.header: {encoding}}
				answer := post(t, client, host.URL+handshakeProc, header, enveloped(way.contentType, flags, body))
				if ok := strings.HasPrefix(answer, "200"); want == 0 && !ok || want != 0 && !says(answer, want) {
					t.Errorf("%s, %s, %s: %s, want %v", name, way.contentType, encoding, answer, want)
				}
				if used := hosttest.Allocated() - before; used > uint64(3*len(body)+2<<20) {
					t.Errorf("%s, %s, %s: %d KiB allocated", name, way.contentType, encoding, used>>10)
				}
			}
		}
	}
	text, err := protojson.Marshal(honest)
	if err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]connect.Code{
		string(text): 0,
		`{"provides":[{}` + strings.Repeat(",{}", 20_000) + `]}`: connect.CodeInvalidArgument,
		`{"selfId":"` + strings.Repeat("a", 100<<10) + `"}`:      connect.CodeResourceExhausted,
	} {
		answer := post(t, client, host.URL+handshakeProc, http.Header{"Content-Type": {"application/json"}}, []byte(body))
		if ok := strings.HasPrefix(answer, "200"); want == 0 && !ok || want != 0 && !says(answer, want) {
			t.Errorf("JSON, %.20s: %s, want %v", body, answer, want)
		}
	}
}

// stuck is a request whose body stops before its end.
type stuck struct {
	answer chan string
	body   *io.PipeWriter
}

// stick sends the beginning of a body and no more.
func stick(t *testing.T, client connect.HTTPClient, address string, header http.Header, begin []byte) *stuck {
	t.Helper()
	body, w := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	s := &stuck{answer: make(chan string, 1), body: w}
	go func() { s.answer <- answerOf(client, req) }()
	if _, err := w.Write(begin); err != nil && !errors.Is(err, io.ErrClosedPipe) { // closed: it has its answer
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return s
}

// wantRefused checks that so many requests were answered: there are too many, of what, and when to come again.
func wantRefused(t *testing.T, all []*stuck, want int, tooMany string) {
	t.Helper()
	got := 0
	for _, s := range all {
		select {
		case answer := <-s.answer:
			if got++; !says(answer, connect.CodeResourceExhausted) || !strings.Contains(answer, "too many "+tooMany) ||
				!strings.Contains(answer, "google.rpc.RetryInfo") {
				t.Errorf("%s, want resource_exhausted", answer)
			}
		default:
		}
	}
	if got != want {
		t.Errorf("%d were answered, want %d", got, want)
	}
}

// A handshake whose body does not come ends in its time, and makes room for others before that.
func TestAudit_ATK03_BodiesThatStopHoldNothing(t *testing.T) {
	t.Parallel()
	whole := hosttest.MustMarshal(t, hosttest.OldRequest("plugin"))
	honest := func(t *testing.T, host *hosttest.Host) {
		t.Helper()
		if _, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("plugin"))); err != nil {
			t.Errorf("an honest handshake: %v", err)
		}
	}
	send := func(t *testing.T, host *hosttest.Host) *stuck {
		t.Helper()
		return stick(t, host.Stranger(t), host.URL+handshakeProc, http.Header{"Content-Type": {"application/proto"}}, whole[:len(whole)-1])
	}
	t.Run("time", func(t *testing.T) {
		t.Parallel()
		host := unprovenHost(t, func(c *connectplugin.ServeConfig) { c.Limits.BodyTimeout = 3 * time.Second })
		s := send(t, host)
		if answer := hosttest.Arrival(t, s.answer); !says(answer, connect.CodeDeadlineExceeded) {
			t.Errorf("%s, want deadline_exceeded", answer)
		}
		honest(t, host)
	})
	for name, limit := range map[string]func(*connectplugin.Limits){
		"in all":     func(l *connectplugin.Limits) { l.MaxPendingHandshakes = 2 },
		"an address": func(l *connectplugin.Limits) { l.MaxPendingHandshakesPerPeer = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := unprovenHost(t, func(c *connectplugin.ServeConfig) { c.Limits.BodyTimeout = time.Hour; limit(&c.Limits) })
			all := []*stuck{send(t, host), send(t, host), send(t, host), send(t, host)}
			hosttest.Eventually(t, "two made room", func() bool {
				return len(all[0].answer)+len(all[1].answer)+len(all[2].answer)+len(all[3].answer) >= 2
			})
			wantRefused(t, all, 2, "handshakes at a time")
			honest(t, host)
		})
	}
}

// What a handshake lists is not looked at before its sender may enrol and has paid: that takes many times as long as the rest.
func TestAudit_ATK03_ListsAreReadOfWhoPaid(t *testing.T) {
	t.Parallel()
	host := unprovenHost(t, func(c *connectplugin.ServeConfig) { c.Limits.HandshakesPerSecond, c.Limits.HandshakeBurst = 0.001, 2 })
	client := hosttest.HandshakeClient(t, host)
	shake := func(selfID string, edit func(*connectpluginv1.HandshakeRequest)) string {
		m := hosttest.OldRequest(selfID)
		edit(m)
		_, err := client.Handshake(t.Context(), connect.NewRequest(m))
		if err == nil {
			return ""
		}
		return err.Error()
	}
	lists := map[string]func(*connectpluginv1.HandshakeRequest){
		"requires[0]": func(m *connectpluginv1.HandshakeRequest) {
			m.Requires = []*connectpluginv1.ServiceDependency{{Type: "a", MinVersion: strings.Repeat("1.x || ", 16) + "1.x"}}
		},
		"provides[0]": func(m *connectpluginv1.HandshakeRequest) {
			m.Provides = []*connectpluginv1.ServiceDeclaration{{Type: "a", Version: "one"}}
		},
	}
	nothing := func(*connectpluginv1.HandshakeRequest) {}
	for field, edit := range lists {
		if got, want := shake("nobody", edit), shake("nobody", nothing); got != want || want == "" {
			t.Errorf("a stranger learns %q of a wrong %s, and %q of a right one", got, field, want)
		}
		if got := shake("plugin", edit); !strings.HasPrefix(got, "invalid_argument: "+field) {
			t.Errorf("%s: %q", field, got)
		}
	}
	for _, selfID := range []string{"plugin", ""} {
		for field, edit := range lists {
			if got := shake(selfID, edit); !strings.HasPrefix(got, "resource_exhausted") {
				t.Errorf("%q, %s, more often than may be: %q", selfID, field, got)
			}
		}
	}
}

// A handshake whose head is large counts as several.
func TestAudit_ATK14_PendingHandshakesOfLongHeads(t *testing.T) {
	t.Parallel()
	const each = 7 // two of three, and one
	host := unprovenHost(t, func(c *connectplugin.ServeConfig) {
		c.Limits.BodyTimeout, c.Limits.MaxPendingHandshakesPerPeer = time.Hour, each
	})
	header := longHead()
	header.Set("Content-Type", "application/proto")
	var all []*stuck
	for n := range 3 {
		all = append(all, stick(t, host.Stranger(t), host.URL+handshakeProc, header.Clone(), []byte{8}))
		if n == 1 {
			wantRefused(t, all, 0, "handshakes at a time")
		}
	}
	hosttest.Eventually(t, "the third takes the place of one", func() bool {
		return len(all[0].answer)+len(all[1].answer)+len(all[2].answer) > 0
	})
	wantRefused(t, all, 1, "handshakes at a time")
}

// A stranger that does not know the secret of a plugin costs the same operations whether
// there is one or not. They are counted: nobody measures times.
func TestAudit_ATK23_SecretsCostTheSameOperations(t *testing.T) {
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Logger = nil
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"secret": hosttest.Allow(nil), "certificate": {Certificates: []string{"spiffe://x.example/certificate"}},
		}}
	})
	client := hosttest.HandshakeClient(t, host)
	for name, prepare := range map[string]func(*connectpluginv1.HandshakeRequest){
		"no proof":    func(*connectpluginv1.HandshakeRequest) {},
		"wrong proof": func(m *connectpluginv1.HandshakeRequest) { m.ClientProof = make([]byte, transcript.ProofSize) },
		"no nonce":    func(m *connectpluginv1.HandshakeRequest) { m.ClientNonce = nil },
	} {
		counts := map[string]uint64{}
		for _, selfID := range []string{"secret", "certificate", "nobody"} {
			m := wire.FreshRequest(selfID)
			prepare(m)
			before := transcript.Operations()
			_, err := client.Handshake(context.Background(), connect.NewRequest(m))
			counts[selfID] = transcript.Operations() - before
			if connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("%s, %s: %v", name, selfID, err)
			}
		}
		if counts["secret"] != counts["nobody"] || counts["secret"] != counts["certificate"] || name != "no nonce" && counts["secret"] == 0 {
			t.Errorf("%s: operations %v", name, counts)
		}
	}
	host.Enrol(t, "secret", nil)
}

// A message that still comes when the time of its call is over ends with that: its caller is told so in its protocol, and
// the audit names the call's own bound.
func TestAudit_ATK14_CallsThatEndWhileTheirMessageComes(t *testing.T) {
	t.Parallel()
	for _, procedure := range []string{handshakeProc, connectpluginv1connect.HealthServiceCheckProcedure} {
		for _, content := range []string{"application/proto", "application/grpc"} {
			t.Run(procedure+", "+content, func(t *testing.T) {
				t.Parallel()
				host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
					c.Policy, c.Limits.CallTimeout, c.Limits.BodyTimeout = hosttest.LoggerPolicy(), 500*time.Millisecond, 3*time.Second
				})
				client, header := connect.HTTPClient(host.Stranger(t)), http.Header{"Content-Type": {content}}
				if procedure != handshakeProc {
					client = host.Enrol(t, "api", hosttest.Requiring("logger")).HTTPClient()
				}
				s := stick(t, client, host.URL+procedure, header, []byte{0})
				if answer := hosttest.Arrival(t, s.answer); !says(answer, connect.CodeDeadlineExceeded) {
					t.Errorf("%s, want deadline_exceeded", answer)
				}
				host.Stop(t) // when every call has ended
				if events, n := limitedOf(host, "Limits.CallTimeout"); n != 1 {
					t.Errorf("the audit has %v", events)
				}
				if events, _ := limitedOf(host, "Limits.BodyTimeout"); len(events) > 0 {
					t.Errorf("the audit names another bound: %v", events)
				}
			})
		}
	}
}
