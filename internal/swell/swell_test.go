package swell_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/masegraye/connect-plugin-go/internal/swell"
)

const free = 64 << 10

var bounds = swell.Bounds{Bytes: 128 << 10, Ratio: 10, Free: free}

func compressed(plain []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(plain)
	_ = z.Close()
	return b.Bytes()
}

func zeros(n int) []byte { return make([]byte, n) }

// noise does not shrink.
func noise(n int) []byte {
	p, source := make([]byte, n), rand.NewChaCha8([32]byte{})
	_, _ = source.Read(p)
	return p
}

func envelope(flags byte, message []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))
	return append(head, message...)
}

// request is one of a content type, compressed as its header says.
func request(body io.Reader, contentType, header, encoding string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", body)
	r.Header.Set("Content-Type", contentType)
	if encoding != "" {
		r.Header.Set(header, encoding)
	}
	return r
}

func tell(err error) error { return err }

// What may pass passes byte by byte, and what may not ends before its last byte.
func TestGuard_Bodies(t *testing.T) {
	t.Parallel()
	mixed := append(zeros(96<<10), noise(30<<10)...) // its beginning alone has too high a ratio
	for name, c := range map[string]struct {
		body  []byte
		whole bool
		want  error
	}{
		"small":                     {compressed([]byte("hello")), true, nil},
		"free of the ratio":         {compressed(zeros(free)), true, nil},
		"beyond the ratio":          {compressed(zeros(free + 1)), true, swell.ErrSwollen},
		"beyond the bytes":          {compressed(noise(128<<10 + 1)), true, swell.ErrSwollen},
		"large, within the bytes":   {compressed(noise(128 << 10)), true, nil},
		"a beginning that shrinks":  {compressed(mixed), true, nil},
		"two members":               {append(compressed(zeros(1000)), compressed(zeros(1000))...), true, nil},
		"many members":              {bytes.Repeat(compressed(zeros(free)), 2), true, swell.ErrSwollen},
		"not compressed at all":     {[]byte("not compressed at all"), true, swell.ErrCorrupt},
		"cut off":                   {compressed(noise(1000))[:500], true, nil},
		"empty":                     {nil, true, nil},
		"empty members":             {bytes.Repeat(compressed(nil), 15_000), true, swell.ErrCorrupt},
		"envelopes":                 {append(envelope(1, compressed(zeros(1000))), envelope(0, zeros(300<<10))...), false, nil},
		"the third is too large":    {bytes.Join([][]byte{envelope(1, compressed(noise(9))), envelope(0, noise(9)), envelope(1, compressed(zeros(96<<10)))}, nil), false, swell.ErrSwollen},
		"a mixed envelope":          {envelope(1, compressed(mixed)), false, nil},
		"an empty envelope":         {append(envelope(1, nil), envelope(1, compressed(noise(5)))...), false, nil},
		"a flag of the end":         {envelope(3, compressed(zeros(96<<10))), false, swell.ErrSwollen},
		"an envelope is cut off":    {envelope(1, compressed(noise(1000)))[:300], false, nil},
		"a head is cut off":         {[]byte{1, 0, 0}, false, nil},
		"an envelope with trailing": {envelope(1, append(compressed(noise(5)), "trailing garbage"...)), false, swell.ErrCorrupt},
	} {
		for way, source := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "in halves": iotest.HalfReader, "with the end": iotest.DataErrReader} {
			r := request(source(bytes.NewReader(c.body)), "application/proto", "Content-Encoding", "gzip")
			if r.ContentLength = -1; way == "at once" {
				r.ContentLength = int64(len(c.body))
			}
			if !c.whole {
				r = request(source(bytes.NewReader(c.body)), "Application/gRPC-web+proto; x=y", "Grpc-Encoding", "GZIP")
			}
			if name == "a beginning that shrinks" && way != "at once" {
				continue // nobody says how much will follow
			}
			guarded, err := swell.Guard(r, bounds, tell)
			if err != nil {
				t.Fatal(name, err)
			}
			got, err := io.ReadAll(guarded.Body)
			switch {
			case !errors.Is(err, c.want) || c.want == nil && err != nil:
				t.Errorf("%s, %s: %v, want %v", name, way, err, c.want)
			case c.want == nil && !bytes.Equal(got, c.body):
				t.Errorf("%s, %s: %d of %d bytes pass", name, way, len(got), len(c.body))
			case c.want != nil && len(got) >= len(c.body):
				t.Errorf("%s, %s: all of it passes", name, way)
			}
		}
	}
}

// The body's own errors pass.
func TestGuard_PassesErrorsOn(t *testing.T) {
	t.Parallel()
	own := errors.New("own")
	body := io.MultiReader(bytes.NewReader(compressed(noise(5000))[:2000]), iotest.ErrReader(own))
	r, err := swell.Guard(request(body, "application/json", "Content-Encoding", "gzip"), bounds, tell)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r.Body); !errors.Is(err, own) || len(got) != 2000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// What nobody can look into is refused, and what is not compressed is left alone.
func TestGuard_Encodings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		contentType string
		header      http.Header
		want        error
		touched     bool
	}{
		"nothing":               {"application/proto", nil, nil, false},
		"identity":              {"application/proto", http.Header{"Content-Encoding": {"identity"}}, nil, false},
		"gzip":                  {"application/proto", http.Header{"Content-Encoding": {"gzip"}}, nil, true},
		"unknown":               {"application/proto", http.Header{"Content-Encoding": {"br"}}, swell.ErrEncoding, false},
		"several":               {"text/plain", http.Header{"Content-Encoding": {"gzip, gzip"}}, swell.ErrEncoding, false},
		"twice":                 {"text/plain", http.Header{"Content-Encoding": {"identity", "gzip"}}, swell.ErrEncoding, false},
		"gRPC":                  {"application/grpc", http.Header{"Grpc-Encoding": {"gzip"}}, nil, true},
		"gRPC, unknown":         {"application/grpc", http.Header{"Grpc-Encoding": {"zstd"}}, swell.ErrEncoding, false},
		"gRPC, both":            {"application/grpc", http.Header{"Grpc-Encoding": {"gzip"}, "Content-Encoding": {"gzip"}}, swell.ErrEncoding, false},
		"gRPC, the wrong one":   {"application/grpc", http.Header{"Content-Encoding": {"gzip"}}, swell.ErrEncoding, false},
		"Connect, streaming":    {"application/connect+json", http.Header{"Connect-Content-Encoding": {"gzip"}}, nil, true},
		"the other's header":    {"application/proto", http.Header{"Grpc-Encoding": {"zstd"}}, nil, false},
		"no content type, gzip": {"", http.Header{"Content-Encoding": {"gzip"}}, nil, true},
	} {
		r := request(strings.NewReader("x"), c.contentType, "", "")
		maps.Copy(r.Header, c.header)
		got, err := swell.Guard(r, bounds, tell)
		if !errors.Is(err, c.want) || (got != r) != c.touched {
			t.Errorf("%s: %v, touched: %t", name, err, got != r)
		}
	}
}

// A ratio without bounds leaves those of bytes.
func TestBounds_Most(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		bounds           swell.Bounds
		compressed, want int64
	}{
		{swell.Bounds{Bytes: 1000, Ratio: 10, Free: 50}, 1, 50},
		{swell.Bounds{Bytes: 1000, Ratio: 10, Free: 50}, 20, 200},
		{swell.Bounds{Bytes: 1000, Ratio: 10, Free: 50}, 500, 1000},
		{swell.Bounds{Bytes: 1000, Ratio: 10, Free: 5000}, 1, 1000},
		{swell.Bounds{Bytes: 1000, Ratio: math.MaxInt, Free: 50}, 500, 1000},
	} {
		if got := c.bounds.Most(c.compressed); got != c.want {
			t.Errorf("%+v of %d: %d, want %d", c.bounds, c.compressed, got, c.want)
		}
	}
}

// padded is a gzip stream in base64 that ends with padding.
func padded(p []byte) string {
	for len(p)%3 == 0 {
		p = append(p, 0) // after its end: an error of whoever reads that far
	}
	return base64.URLEncoding.EncodeToString(p)
}

// The message of a GET request is bounded, too.
func TestGuard_Queries(t *testing.T) {
	t.Parallel()
	bomb, small := compressed(zeros(96<<10)), compressed(zeros(200))
	encode := base64.URLEncoding.EncodeToString
	for name, c := range map[string]struct {
		query url.Values
		want  error
	}{
		"small":          {url.Values{"compression": {"gzip"}, "base64": {"1"}, "message": {encode(small)}}, nil},
		"bomb":           {url.Values{"compression": {"gzip"}, "base64": {"1"}, "message": {encode(bomb)}}, swell.ErrSwollen},
		"bomb, raw":      {url.Values{"compression": {"gzip"}, "message": {string(bomb)}}, swell.ErrSwollen},
		"no compression": {url.Values{"base64": {"1"}, "message": {encode(bomb)}}, nil},
		"line feeds":     {url.Values{"compression": {"gzip"}, "base64": {"1"}, "message": {padded(bomb) + "\n\r\n\n"}}, swell.ErrSwollen},
		"not gzip":       {url.Values{"compression": {"zstd"}, "encoding": {"proto"}, "message": {"x"}}, swell.ErrEncoding},
		"identity":       {url.Values{"compression": {"identity"}, "encoding": {"proto"}, "message": {"x"}}, nil},
		"of another's":   {url.Values{"compression": {"zstd"}}, nil},
		"malformed":      {url.Values{"compression": {"gzip"}, "base64": {"1"}, "message": {"*"}}, nil},
	} {
		_, err := swell.Guard(httptest.NewRequest(http.MethodGet, "/?"+c.query.Encode(), nil), bounds, tell)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
