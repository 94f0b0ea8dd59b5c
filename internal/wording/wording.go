// Package wording has a handler say once what many are to hear: what it writes of a message or
// of the end of a stream, in one form, is the same for all whose answers have that form.
package wording

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
)

// The fields of a response that say how its messages are compressed, and those of a request that
// ask for it.
var compressions = [...]struct{ said, asked string }{
	{"Connect-Content-Encoding", "Connect-Accept-Encoding"},
	{"Grpc-Encoding", "Grpc-Accept-Encoding"},
}

// Form is what the bytes of a message depend on, beside the message.
type Form struct {
	contentType string
	compression string // empty for none
	asked       string // the field that asks for it
}

// FormOf returns the form of a response by its head.
func FormOf(head http.Header) Form {
	f := Form{contentType: head.Get("Content-Type")}
	for _, c := range compressions {
		if said := head.Get(c.said); said != "" {
			f.compression, f.asked = said, c.asked
		}
	}
	return f
}

// Record takes down what a handler says. It is its response writer.
type Record struct {
	// What is to be said.
	What any

	header http.Header
	said   bytes.Buffer
	on     bool
}

// Say has a handler say something in a form, under a path, and returns what it wrote between
// [Record.Begin] and [Record.Stop], or its end, and the header as it left it.
func (f Form) Say(handler http.Handler, path string, what any) (said []byte, header http.Header) {
	rec := &Record{What: what, header: http.Header{}}
	asks := http.Header{"Content-Type": {f.contentType}}
	if f.compression != "" {
		asks[f.asked] = []string{f.compression}
	}
	const major = 2
	r := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: path}, Proto: "HTTP/2.0", ProtoMajor: major, Header: asks, Body: http.NoBody,
	}
	handler.ServeHTTP(rec, r.WithContext(context.WithValue(context.Background(), recordKey{}, rec)))
	return rec.said.Bytes(), rec.header
}

type recordKey struct{}

// RecordOf returns the record that a handler writes, nil for none.
func RecordOf(ctx context.Context) *Record {
	rec, _ := ctx.Value(recordKey{}).(*Record)
	return rec
}

// Begin has what is written from now on taken down.
func (r *Record) Begin() { r.on = true }

// Stop has nothing more taken down.
func (r *Record) Stop() { r.on = false }

// Header implements http.ResponseWriter.
func (r *Record) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (*Record) WriteHeader(int) {}

// Flush implements http.Flusher.
func (*Record) Flush() {}

// Write implements http.ResponseWriter.
func (r *Record) Write(p []byte) (int, error) {
	if r.on {
		r.said.Write(p)
	}
	return len(p), nil
}

// Bounds of a memory.
const (
	mostKept    = 32       // sayings
	longestKept = 32 << 10 // bytes of one
)

// Memory keeps what was said last, for those who are to hear the same. The zero Memory is empty.
// It is safe for concurrent use.
type Memory[K comparable] struct {
	last atomic.Pointer[saying[K]] // of those kept, that was asked for; nil at first

	mu   sync.Mutex
	kept map[K]*saying[K]
}

type saying[K comparable] struct {
	key  K
	said []byte
}

// Recall returns what was said of a key, or else what say says now, without a lock. Nobody may
// change it.
func (m *Memory[K]) Recall(key K, say func() []byte) []byte {
	if last := m.last.Load(); last != nil && last.key == key {
		return last.said // a crowd asks for one
	}
	m.mu.Lock()
	it, ok := m.kept[key]
	m.mu.Unlock()
	if ok {
		m.last.Store(it)
		return it.said
	}
	it = &saying[K]{key, say()}
	if len(it.said) > longestKept {
		return it.said
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept == nil {
		m.kept = map[K]*saying[K]{}
	}
	if len(m.kept) >= mostKept {
		clear(m.kept)
	}
	m.kept[key] = it
	m.last.Store(it)
	return it.said
}
