package host_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// Sizes beyond every bound of a field and within that of a message.
const (
	hugeText  = 64 << 10
	hugeCount = 20_000
)

// honestRequests are requests that a host accepts from a plugin with every right.
func honestRequests() map[string]proto.Message {
	return map[string]proto.Message{
		connectpluginv1connect.HandshakeServiceHandshakeProcedure:         wire.FreshRequest("api"),
		connectpluginv1connect.PluginLifecycleReportHealthProcedure:       &connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY},
		connectpluginv1connect.ServiceRegistryRegisterServiceProcedure:    &connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "1.0.0", EndpointPath: "/a/"},
		connectpluginv1connect.ServiceRegistryDiscoverServiceProcedure:    &connectpluginv1.DiscoverServiceRequest{ServiceType: "logger"},
		connectpluginv1connect.ServiceRegistryWatchServiceProcedure:       &connectpluginv1.WatchServiceRequest{ServiceType: "logger"},
		connectpluginv1connect.CapabilityBrokerRequestCapabilityProcedure: &connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"},
		connectpluginv1connect.HealthServiceCheckProcedure:                &connectpluginv1.HealthCheckRequest{},
		connectpluginv1connect.HealthServiceWatchProcedure:                &connectpluginv1.HealthCheckRequest{},
		// Nobody's registration: refused for that, and not for its size.
		connectpluginv1connect.ServiceRegistryUnregisterServiceProcedure: &connectpluginv1.UnregisterServiceRequest{RegistrationId: "reg-1"},
	}
}

// oversize is one field of a message beyond its bound.
type oversize struct {
	name  string
	apply func(protoreflect.Message)
}

// oversizes lists what can be too large about a message, at any depth: each string,
// each list and its elements, each map, its keys and its values.
func oversizes(d protoreflect.MessageDescriptor) []oversize {
	var out []oversize
	add := func(f protoreflect.FieldDescriptor, what string, apply func(protoreflect.Message)) {
		out = append(out, oversize{f.TextName() + what, apply})
	}
	fields := d.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			long := protoreflect.ValueOfString(strings.Repeat("a", hugeText))
			short := protoreflect.ValueOfString("a")
			add(f, ": a key", func(m protoreflect.Message) { m.Mutable(f).Map().Set(long.MapKey(), short) })
			add(f, ": a value", func(m protoreflect.Message) { m.Mutable(f).Map().Set(short.MapKey(), long) })
			add(f, ": entries", func(m protoreflect.Message) {
				for i := range hugeCount {
					m.Mutable(f).Map().Set(protoreflect.ValueOfString(fmt.Sprintf("key-%d", i)).MapKey(), short)
				}
			})
		case f.IsList():
			add(f, ": elements", func(m protoreflect.Message) {
				for i := range hugeCount {
					m.Mutable(f).List().Append(sample(f, m, i))
				}
			})
			if f.Message() == nil {
				add(f, ": an element", func(m protoreflect.Message) { m.Mutable(f).List().Append(huge(f)) })
				continue
			}
			for _, o := range oversizes(f.Message()) {
				add(f, "[0]."+o.name, func(m protoreflect.Message) {
					m.Mutable(f).List().Append(sample(f, m, 0))
					o.apply(m.Mutable(f).List().Get(0).Message())
				})
			}
		case f.Message() != nil:
			for _, o := range oversizes(f.Message()) {
				add(f, "."+o.name, func(m protoreflect.Message) { o.apply(m.Mutable(f).Message()) })
			}
		case f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind:
			add(f, "", func(m protoreflect.Message) { m.Set(f, huge(f)) })
		}
	}
	return out
}

// huge returns a value that is too large, and otherwise as good as any.
func huge(f protoreflect.FieldDescriptor) protoreflect.Value {
	text := strings.Repeat("a", hugeText)
	switch name := f.TextName(); {
	case f.Kind() == protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text))
	case strings.Contains(name, "min_version"):
		const one = ">=1.0.0 || "
		text = strings.Repeat(one, hugeText/len(one)) + ">=1.0.0"
	case strings.Contains(name, "version"):
		text = "1.0.0-" + text
	case strings.Contains(name, "path"):
		text = "/" + text + "/"
	}
	return protoreflect.ValueOfString(text)
}

// sample returns the i-th element for a list, as good as any.
func sample(f protoreflect.FieldDescriptor, m protoreflect.Message, i int) protoreflect.Value {
	if f.Message() == nil {
		return protoreflect.ValueOfString(fmt.Sprintf("name-%d", i))
	}
	e := m.Mutable(f).List().NewElement()
	fields := f.Message().Fields()
	for j := range fields.Len() {
		switch g := fields.Get(j); {
		case g.Kind() != protoreflect.StringKind:
		case strings.Contains(g.TextName(), "version"):
			e.Message().Set(g, protoreflect.ValueOfString("1.0.0"))
		case strings.Contains(g.TextName(), "path"):
			e.Message().Set(g, protoreflect.ValueOfString("/a/"))
		default:
			e.Message().Set(g, protoreflect.ValueOfString(fmt.Sprintf("name-%d", i)))
		}
	}
	return e
}

// boundedByMessage are the fields whose only bound is that of their message. None
// of them is kept longer than its call.
var boundedByMessage = map[protoreflect.Name]bool{
	"UnregisterServiceRequest.registration_id": true,
	"WatchServiceRequest.epoch":                true,
	"HealthCheckRequest.service":               true,
}

// boundsHost is a host with a plugin that has every right.
func boundsHost(t *testing.T, health *connectplugin.HealthServer) (host *hosttest.Host, header http.Header) {
	t.Helper()
	host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.HealthService = health
		c.Policy = hosttest.Unproven("api")
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
		c.Logger = nil
		c.Limits.MaxIdentitiesPerSelfID, c.Limits.MaxGrantsPerIdentity = 10_000, 10_000
	})
	resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("api")))
	if err != nil {
		t.Fatal(err)
	}
	return host, hosttest.IdentityHeader(resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken())
}

// Every string, list and map of every message has a bound, whichever service it is
// for. Fields to come are in it by themselves.
func TestAudit_PROTO21_EveryFieldHasABound(t *testing.T) {
	t.Parallel()
	host, header := boundsHost(t, nil)
	client := host.Stranger(t)
	honest := honestRequests()
	for _, p := range hosttest.Procedures() {
		base := honest[p.Path]
		if base == nil {
			t.Errorf("%s: this test has no honest request for it", p.Path)
			continue
		}
		wantHonest := func(when string) {
			if err := p.Call(t.Context(), client, host.URL, p.Header(header), hosttest.MustMarshal(t, base)); err != nil && connect.CodeOf(err) != wantsCode(p) {
				t.Errorf("%s, %s: %v", p.Path, when, err)
			}
		}
		wantHonest("before")
		for _, o := range oversizes(p.Input) {
			msg := dynamicpb.NewMessage(p.Input)
			hosttest.MustParse(t, hosttest.MustMarshal(t, base), msg)
			o.apply(msg)
			for protocol, opts := range hosttest.Protocols {
				err := p.Call(t.Context(), client, host.URL, p.Header(header), hosttest.MustMarshal(t, msg), opts...)
				if boundedByMessage[p.Input.Name()+"."+protoreflect.Name(o.name)] {
					continue
				}
				if connect.CodeOf(err) != connect.CodeInvalidArgument {
					t.Errorf("%s: %s over %s: %s, want invalid_argument", p.Path, o.name, protocol, hosttest.Cut(err))
				}
				if err != nil && len(err.Error()) > 1024 {
					t.Errorf("%s: %s over %s: the error has %d bytes", p.Path, o.name, protocol, len(err.Error()))
				}
			}
		}
		wantHonest("after")
	}
}

// encoding is one way to put a body on the wire.
type encoding struct {
	protocol, contentType string
	enveloped             bool
	encoding              string // the header that names the compression
}

// encodingsOf lists the ways to call a procedure.
func encodingsOf(p hosttest.Procedure) []encoding {
	out := []encoding{
		{"grpc", "application/grpc+proto", true, "Grpc-Encoding"},
		{"grpc-web", "application/grpc-web+proto", true, "Grpc-Encoding"},
	}
	if p.Stream {
		return append(out, encoding{"connect", "application/connect+proto", true, "Connect-Content-Encoding"})
	}
	return append(out, encoding{"connect", "application/proto", false, "Content-Encoding"})
}

// send posts a body as it is and returns the answer's status in the protocol.
func (w encoding) send(ctx context.Context, t *testing.T, client *http.Client, url string, header http.Header, body []byte, compressed bool) string {
	t.Helper()
	if w.enveloped {
		var flags byte
		if compressed {
			flags = 1
		}
		body = append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(body))), body...)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = maps.Clone(header)
	req.Header.Set("Content-Type", w.contentType)
	if compressed {
		req.Header.Set(w.encoding, "gzip")
	}
	resp, err := client.Do(req)
	if err != nil {
		return "transport: " + hosttest.Cut(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "body: " + hosttest.Cut(err)
	}
	if w.protocol == "connect" && w.enveloped && len(answer) > 5 && answer[0]&1 != 0 {
		if plain, err := gzip.NewReader(bytes.NewReader(answer[5:])); err == nil {
			answer, _ = io.ReadAll(io.LimitReader(plain, 1<<20))
		}
	}
	return fmt.Sprintf("%d %s %s %s", resp.StatusCode, resp.Header.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Status"), answer)
}

// exhausted reports whether an answer says resource_exhausted, in any protocol.
func exhausted(answer string) bool {
	return strings.Contains(answer, `"code":"resource_exhausted"`) || strings.Contains(answer, "grpc-status: 8") ||
		strings.HasPrefix(answer, "200 8 ") || strings.HasPrefix(answer, "200  8 ")
}

// liveHeap is how many bytes are in use after a collection.
func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A message beyond the limit is refused before it is decoded and while it is
// decompressed, by every procedure in every protocol, and costs the host no more
// memory than the limit allows. It does not run in parallel: it measures.
func TestAudit_PROTO21_H47_BombsAreRefused(t *testing.T) {
	host, header := boundsHost(t, nil)
	client := host.Stranger(t)
	const perRequest = 12 << 20 // what a message of 1 MiB, compressed and not, may take with all its buffers
	bombs := map[string]struct {
		body       []byte
		compressed bool
	}{
		"24 MiB of zeros, compressed":          {hosttest.GzipOf(t, 24<<20), true},
		"just beyond the limit, compressed":    {hosttest.GzipOf(t, 1<<20+1), true},
		"just beyond the limit":                {make([]byte, 1<<20+1), false},
		"far beyond the limit":                 {make([]byte, 2<<20), false},
		"far beyond the limit, no gzip at all": {make([]byte, 2<<20), true},
	}
	for name, bomb := range bombs {
		before, heap, count := hosttest.Allocated(), liveHeap(), 0
		for _, p := range hosttest.Procedures() {
			for _, w := range encodingsOf(p) {
				count++
				if answer := w.send(t.Context(), t, client, host.URL+p.Path, p.Header(header), bomb.body, bomb.compressed); !exhausted(answer) {
					t.Errorf("%s: %s over %s: %.200q, want resource_exhausted", name, p.Path, w.protocol, answer)
				}
			}
		}
		own := uint64(len(bomb.body)) + 1<<20 // what this client copies
		if used := (hosttest.Allocated() - before) / uint64(count); used > perRequest+own {
			t.Errorf("%s: %d KiB allocated for each request, want at most %d", name, used>>10, (perRequest+own)>>10)
		}
		if after := liveHeap(); after > heap+32<<20 {
			t.Errorf("%s: the heap grew from %d to %d KiB", name, heap>>10, after>>10)
		}
	}
	// A length that nobody will send takes no room in advance.
	before := hosttest.Allocated()
	for _, p := range hosttest.Procedures() {
		for _, w := range encodingsOf(p) {
			if !w.enveloped {
				continue
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, host.URL+p.Path, strings.NewReader("\x00\xff\xff\xff\xff"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = maps.Clone(p.Header(header))
			req.Header.Set("Content-Type", w.contentType)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	if used := hosttest.Allocated() - before; used > 64<<20 {
		t.Errorf("lengths without a message: %d KiB allocated", used>>10)
	}
	for _, p := range hosttest.Procedures() {
		if wantsCode(p) != 0 {
			continue
		}
		body := hosttest.MustMarshal(t, honestRequests()[p.Path])
		if err := p.Call(t.Context(), client, host.URL, p.Header(header), body, connect.WithSendGzip()); err != nil {
			t.Errorf("%s, an honest message, compressed: %v", p.Path, err)
		}
	}
}

// wantsCode is how a host answers the honest request, zero for success.
func wantsCode(p hosttest.Procedure) connect.Code {
	if p.Path == connectpluginv1connect.ServiceRegistryUnregisterServiceProcedure {
		return connect.CodeNotFound
	}
	return 0
}
