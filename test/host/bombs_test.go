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

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

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
