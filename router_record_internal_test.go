package connectplugin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// BenchmarkCallRecord is what the host does for an observer on a routed call, and no more.
func BenchmarkCallRecord(b *testing.B) {
	h := newHub((&ServeConfig{}).withDefaults().settings())
	b.Cleanup(func() { h.callers.Close(); h.strangers.Close() })
	id, _, err := h.store.Issue(tokenstore.Request{SelfID: "caller"})
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/services/kv/-/kv.v1.KV/Get", nil)
	r.Header.Set("Content-Type", "application/proto")
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	call := &routedCall{caller: &caller{id: id, hub: h}}
	call.target.route.Type, call.target.path = "kv", "/kv.v1.KV/Get"
	call.target.reg = catalog.Registration{Type: "kv", SelfID: "provider", RuntimeID: "provider-1"}
	header, body := http.Header{"Content-Type": {"application/proto"}}, make([]byte, 256)
	b.ReportAllocs()
	for b.Loop() {
		call.record = newCallRecord(NopObserver{}, h)
		call.record.begin(r, call)
		o := call.record.attempt()
		o.Head(http.StatusOK, header) // with framingOf, which a call does anyway
		o.Body(body)
		call.record.done(r.Context(), call, proxy.Result{Latency: time.Millisecond})
		call.record.end()
	}
}
