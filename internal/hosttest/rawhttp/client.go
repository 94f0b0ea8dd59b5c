// Package rawhttp sends requests to a host frame by frame, so that they can be such as
// no HTTP client sends. It is for tests only.
package rawhttp

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Types are the content types of a unary call in the three protocols.
var Types = []string{"application/proto", "application/grpc", "application/grpc-web+proto"}

// Client speaks HTTP/2 to a host frame by frame, so that nothing tidies up what an
// attacker sends.
type Client struct {
	t      *testing.T
	host   *hosttest.Host
	conn   *tls.Conn
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	next   uint32
	broken bool // the host ended the connection
}

// Dial connects to the host without a certificate.
func Dial(t *testing.T, host *hosttest.Host) *Client {
	t.Helper()
	cfg := host.StrangerTLS()
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", host.Addr(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(hosttest.Wait))
	w := &Client{t: t, host: host, conn: conn, framer: http2.NewFramer(conn, conn), next: 1}
	w.enc = hpack.NewEncoder(&w.block)
	w.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := w.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return w
}

// Fields are the header fields of a Connect request of a client to a target. More
// fields come in pairs; a pseudo-header field replaces the usual one.
func (w *Client) Fields(c *connectplugin.Client, target string, more ...string) []hpack.HeaderField {
	list := []hpack.HeaderField{
		{Name: ":method", Value: http.MethodPost},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: w.host.Addr()},
		{Name: ":path", Value: target},
	}
	var regular []hpack.HeaderField
	for i := 0; i < len(more); i += 2 {
		f := hpack.HeaderField{Name: more[i], Value: more[i+1]}
		if !strings.HasPrefix(f.Name, ":") {
			regular = append(regular, f)
			continue
		}
		for i := range list {
			if list[i].Name == f.Name {
				list[i] = f
			}
		}
	}
	return append(append(list,
		hpack.HeaderField{Name: "content-type", Value: "application/proto"},
		hpack.HeaderField{Name: "x-plugin-runtime-id", Value: c.RuntimeID()},
		hpack.HeaderField{Name: "authorization", Value: "Bearer " + c.RuntimeToken()},
	), regular...)
}

// Call sends a request and awaits its end, on another connection if the host ended
// this one.
func (w *Client) Call(fields []hpack.HeaderField, body []byte) Answer {
	w.t.Helper()
	if w.broken {
		_ = w.conn.Close()
		*w = *Dial(w.t, w.host)
	}
	return w.await(w.send(fields, body))
}

// CallIn is call in the protocol of a content type, for a message without its envelope.
func (w *Client) CallIn(contentType string, fields []hpack.HeaderField, message []byte) Answer {
	w.t.Helper()
	for i := range fields {
		if fields[i].Name == "content-type" {
			fields[i].Value = contentType
		}
	}
	if contentType != Types[0] {
		fields = append(fields, Field("te", "trailers"))
		message = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	}
	return w.Call(fields, message)
}

// send sends a request with a body and returns its stream.
func (w *Client) send(fields []hpack.HeaderField, body []byte) uint32 {
	w.t.Helper()
	id := w.next
	w.next += 2
	w.block.Reset()
	for _, f := range fields {
		if err := w.enc.WriteField(f); err != nil {
			w.t.Fatal(err)
		}
	}
	err := w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: w.block.Bytes(), EndHeaders: true})
	if err == nil {
		err = w.framer.WriteData(id, true, body)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// await reads until the stream ends, one way or another.
func (w *Client) await(id uint32) Answer {
	w.t.Helper()
	var a Answer
	for {
		frame, err := w.framer.ReadFrame()
		var streamErr http2.StreamError
		if errors.As(err, &streamErr) && streamErr.StreamID == id {
			return Answer{}
		}
		if err != nil {
			w.t.Fatalf("read frame: %v", err)
		}
		if _, ok := frame.(*http2.GoAwayFrame); ok {
			w.broken = true
			return Answer{}
		}
		if f, ok := frame.(*http2.SettingsFrame); ok && !f.IsAck() {
			_ = w.framer.WriteSettingsAck()
		}
		if frame.Header().StreamID == id && a.take(frame) {
			return a
		}
	}
}

// Answer is what came back on a stream. A refusal below HTTP has no status.
type Answer struct {
	Status          string
	header, trailer http.Header
	body            []byte
}

// Served reports whether the answer is that of a service that succeeded, in any
// protocol.
func (a *Answer) Served() bool {
	switch {
	case a.Status != "200":
		return false
	case strings.HasPrefix(a.header.Get("Content-Type"), "application/grpc-web"):
		return bytes.Contains(bytes.ToLower(a.body), []byte("grpc-status: 0"))
	case strings.HasPrefix(a.header.Get("Content-Type"), "application/grpc"):
		return a.trailer.Get("Grpc-Status") == "0"
	}
	return true
}

// take takes in a frame of the stream and reports whether it is the last one.
func (a *Answer) take(frame http2.Frame) bool {
	switch f := frame.(type) {
	case *http2.RSTStreamFrame:
		return true
	case *http2.DataFrame:
		a.body = append(a.body, f.Data()...)
		return f.StreamEnded()
	case *http2.MetaHeadersFrame:
		header := http.Header{}
		for _, field := range f.RegularFields() {
			header.Add(field.Name, field.Value)
		}
		if a.header == nil {
			a.Status, a.header = f.PseudoValue("status"), header
		} else {
			a.trailer = header
		}
		return f.StreamEnded()
	}
	return false
}

// Field is a header field.
func Field(name, value string) hpack.HeaderField {
	return hpack.HeaderField{Name: name, Value: value}
}
