package link_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/link"
)

// A message of a stream leaves in one frame with its head, which Connect's client writes apart, and nothing of it waits for the next one.
func TestUpload_AMessageIsAFrame(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("x", 300)
	messages := [][]string{ // what is written of each, one after the other
		{"\x00\x00\x00\x00\x03", "abc"},
		{"\x00\x00\x00\x00\x00"},
		{"\x01\x00\x00\x00\x05", "\x00\x00\x00\x00\x09"}, // looks like a head
		{"\x00\x00\x00\x02\x58", long, long},
		{"\x00\x00", "\x00\x00\x01", "x"},
		{"\x00\x00\x00\x00\x01y\x00\x00\x00\x00", "\x02z", "z"}, // a client that gathers in a way of its own
		{"\x00\x00\x00\x00\x04"},                                // and no more of it
	}
	whole, apart := []int{8, 5, 10, 305, 300, 6, 10, 2, 1, 5}, []int{5, 3, 5, 5, 5, 5, 300, 300, 2, 3, 1, 10, 2, 1, 5}

	for kind, want := range map[string][]int{
		"application/grpc": whole, "application/grpc+proto": whole, "application/connect+json": whole, "application/grpc-web+proto": whole,
		"application/grpc-web-text": apart, "application/proto": apart, "text/plain": apart, "": apart,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &reader{}
				p := newPool(t, r.dial, 1, nil)
				body, in := io.Pipe()
				write(t, p, kind, body)

				var sent bytes.Buffer

				for i, message := range messages {
					for _, part := range message {
						sent.WriteString(part)
						_, _ = io.WriteString(in, part)
					}

					if i == len(messages)-1 {
						_ = in.Close()
					}

					if synctest.Wait(); !bytes.Equal(r.got.Bytes(), sent.Bytes()) {
						t.Errorf("of message %d and those before arrived %q", i, r.got.Bytes())
					}
				}

				if !slices.Equal(r.sizes, want) || !r.ended {
					t.Errorf("in frames of %v bytes, ended: %t; want %v", r.sizes, r.ended, want)
				}

				p.Close()
				synctest.Wait()
			})
		})
	}
}

// write begins a request with a body, and leaves it to itself once its answer has begun.
func write(t *testing.T, p *link.Pool, kind string, body io.Reader) {
	t.Helper()

	r := request(t.Context(), t, http.MethodPost, "http://server/", body)
	r.Header.Set("Content-Type", kind)

	resp, err := p.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = resp.Body.Close() })
}

// reader is a server that reads one request, and answers nothing but that it began. What it read is looked at when it waits.
type reader struct {
	got   bytes.Buffer
	sizes []int // of frames of data
	ended bool
}

func (r *reader) dial(_ context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
	near, far := net.Pipe()

	go r.read(far)

	return below(near), nil
}

func (r *reader) read(c net.Conn) {
	defer func() { _ = c.Close() }()

	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}

	framer := http2.NewFramer(c, c)
	begun := make(chan struct{})

	go func() {
		defer close(begun)

		_ = framer.WriteSettings()
	}()

	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}

		switch f := frame.(type) {
		case *http2.HeadersFrame:
			<-begun

			var block bytes.Buffer
			_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: block.Bytes(), EndHeaders: true})
		case *http2.DataFrame:
			r.got.Write(f.Data())

			if len(f.Data()) > 0 {
				r.sizes = append(r.sizes, len(f.Data()))
			}

			r.ended = r.ended || f.StreamEnded()
		}
	}
}
