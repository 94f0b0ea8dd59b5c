//nolint:wrapcheck // errors of the framer end an attack, and nobody looks at them
package kinds

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/bench/stage"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/record"
)

const (
	victims     = 8 // who call the hostile provider all the time
	victimLimit = 500 * time.Millisecond
	pieces      = 40 // header fields of a CONTINUATION
)

// providers are attacks of a plugin on those who call it, and on the host between.
func providers() []Kind {
	list := []Kind{
		{Name: "endless header lists", run: serve(endlessHeaders(true))},
		{Name: "endless trailers", run: serve(endlessHeaders(false))},
		{Name: "endless interim answers", run: serve(interim)},
		{Name: "answers of many fields", run: serve(wide(takenFields, 0, true))},
		{Name: "drip", run: serve(dripping)},
		{Name: "GOAWAY loops", run: serve(func(s *served, id uint32) error {
			_ = s.WriteGoAway(id, http2.ErrCodeNo, nil)
			_ = s.Flush()
			return io.EOF
		})},
		{Name: "connection churn", run: serve(func(*served, uint32) error { return io.EOF })},
		{Name: "compressed bombs", run: serve(bombed)},
		{Name: "answers without end", run: serve(pouring)},
		{Name: "DATA beyond the window", run: serve(overflowing)},
		{Name: pingFlood, run: serve(repeat(func(s *served, _ uint32) error { return s.WritePing(false, [8]byte{}) }))},
		{Name: "SETTINGS flood", run: serve(repeat(func(s *served, _ uint32) error { return s.WriteSettings() }))},
		{Name: "empty DATA flood", run: serve(opened(repeat(func(s *served, id uint32) error { return s.WriteData(id, false, nil) })))},
		{Name: "WINDOW_UPDATE flood", run: serve(repeat(func(s *served, _ uint32) error { return s.WriteWindowUpdate(0, 1) }))},
		{Name: "heads of streams that have ended", run: serve(wordyEndings)},
		{Name: "resets", run: serve(func(s *served, id uint32) error { return s.WriteRSTStream(id, http2.ErrCodeInternal) })},
		{Name: betweenRecords, run: serve(recorded(between, (*record.Writer).Write))},
		{Name: ofAByte, run: serve(recorded(0, (*record.Writer).Write))},
		{Name: updatesAlone, run: serve(recorded(between, updates))},
		{Name: "silence", run: serve(func(*served, uint32) error { return nil })},
	}
	for i := range list {
		list[i].Who = Provider
	}
	return list
}

// served is a connection of the host to the hostile provider.
type served struct {
	*http2.Framer

	attack *attack
	ctx    context.Context //nolint:containedctx // of the attack
	out    *bytes.Buffer
	conn   *tls.Conn
	keys   *record.Keys
	block  bytes.Buffer
	fields *hpack.Encoder

	mu sync.Mutex // held by who writes
}

// Flush writes the frames that were written.
func (s *served) Flush() error {
	_, err := s.out.WriteTo(s.conn)
	return err
}

// behaviour answers a request of the host. An error ends the connection.
type behaviour func(s *served, id uint32) error

// serve registers a provider that behaves in a way, and has it called.
func serve(b behaviour) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		var working sync.WaitGroup
		defer working.Wait()
		defer func() { _ = l.Close() }()
		working.Go(func() { a.accept(ctx, l, &working, b) })
		if err := a.register(ctx, "https://"+l.Addr().String()); err != nil {
			return err
		}
		callers, err := stage.Connect(ctx, a.authority, a.addr, stage.Bad, stage.Hostile)
		if err != nil {
			return err
		}
		defer callers.Close(context.WithoutCancel(ctx))
		var calling sync.WaitGroup
		for range victims {
			calling.Go(func() {
				for ctx.Err() == nil {
					limited, cancel := context.WithTimeout(ctx, victimLimit)
					_ = callers.Call(limited)
					cancel()
					rest(ctx)
				}
			})
		}
		calling.Wait()
		return nil
	}
}

func (a *attack) serverTLS() *tls.Config {
	cfg := a.tls.Clone()
	cfg.NextProtos = []string{"h2"}
	cfg.SessionTicketsDisabled = true // whoever writes records counts them
	return cfg
}

func (a *attack) register(ctx context.Context, url string) error {
	_, err := a.client.RegistryClient().RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: stage.Hostile, Version: firstVersion, EndpointPath: stage.Path, Metadata: map[string]string{baseURL: url},
	}))
	if err == nil {
		err = a.client.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
	}
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return nil
}

func (a *attack) accept(ctx context.Context, l net.Listener, working *sync.WaitGroup, b behaviour) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		working.Go(func() {
			defer stop()
			defer func() { _ = c.Close() }()
			a.sent.Add(1)
			a.answer(ctx, c, b)
		})
	}
}

// answer behaves towards each request on a connection.
func (a *attack) answer(ctx context.Context, raw net.Conn, b behaviour) {
	cfg, keys := a.serverTLS(), new(record.Keys)
	cfg.KeyLogWriter = keys
	c := tls.Server(raw, cfg)
	s := &served{attack: a, ctx: ctx, out: &bytes.Buffer{}, conn: c, keys: keys}
	s.Framer = http2.NewFramer(s.out, c)
	s.ReadMetaHeaders = hpack.NewDecoder(headerTable, nil)
	s.fields = hpack.NewEncoder(&s.block)
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	if s.WriteSettings() != nil || s.Flush() != nil {
		return
	}
	var behaving sync.WaitGroup
	defer behaving.Wait()
	defer func() { _ = c.Close() }()
	for {
		f, err := s.ReadFrame()
		if err != nil {
			if ctx.Err() == nil && a.sent.Load() > 1 {
				a.ended("")
			}
			return
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok {
			behaving.Go(func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				if b(s, h.StreamID) != nil || s.Flush() != nil {
					_ = c.Close()
				}
			})
		}
	}
}

// head writes the head of an answer.
func (s *served) head(id uint32, whole bool, status int, more ...string) error {
	s.block.Reset()
	list := append([]string{":status", strconv.Itoa(status)}, more...)
	for i := 0; i < len(list); i += 2 {
		_ = s.fields.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]})
	}
	return s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: bytes.Clone(s.block.Bytes()), EndHeaders: whole})
}

// repeat writes a frame as fast as it goes.
func repeat(write behaviour) behaviour {
	return func(s *served, id uint32) error {
		for s.ctx.Err() == nil && s.attack.sent.Add(1) < mostFrames {
			if err := write(s, id); err != nil {
				return err
			}
			if s.out.Len() < gathered {
				continue
			}
			if err := s.Flush(); err != nil {
				return err
			}
		}
		return nil
	}
}

// opened begins an answer before it goes on.
func opened(then behaviour) behaviour {
	return func(s *served, id uint32) error {
		if err := s.head(id, true, http.StatusOK, "content-type", "application/proto"); err != nil {
			return err
		}
		return then(s, id)
	}
}

func endlessHeaders(first bool) behaviour {
	piece := bytes.Repeat(append([]byte{0, 1, 'a', literalLen}, make([]byte, literalLen)...), pieces)
	more := repeat(func(s *served, id uint32) error { return s.WriteContinuation(id, false, piece) })
	return func(s *served, id uint32) error {
		if first {
			if err := s.head(id, false, http.StatusOK); err != nil {
				return err
			}
			return more(s, id)
		}
		if err := s.head(id, true, http.StatusOK); err != nil {
			return err
		}
		err := s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: piece, EndStream: true})
		if err != nil {
			return err
		}
		return more(s, id)
	}
}

func interim(s *served, id uint32) error {
	return repeat(func(s *served, id uint32) error { return s.head(id, true, http.StatusEarlyHints, "x", "y") })(s, id)
}

func dripping(s *served, id uint32) error {
	if err := s.head(id, true, http.StatusOK, "content-type", "application/proto"); err != nil {
		return err
	}
	for s.ctx.Err() == nil && s.attack.sent.Add(1) < mostFrames {
		if err := s.WriteData(id, false, []byte{0}); err != nil {
			return err
		}
		if err := s.Flush(); err != nil {
			return err
		}
		rest(s.ctx)
	}
	return nil
}

func bombed(s *served, id uint32) error {
	err := s.head(id, true, http.StatusOK, "content-type", "application/proto", "content-encoding", "gzip")
	for left := bomb(); err == nil && len(left) > 0; {
		n := min(len(left), maxFrame)
		err = s.WriteData(id, n == len(left), left[:n])
		left = left[n:]
	}
	return err
}

// pouring answers as far as the window of a stream that nobody enlarges.
func pouring(s *served, id uint32) error {
	if err := s.head(id, true, http.StatusOK, "content-type", "application/proto"); err != nil {
		return err
	}
	const window = 1<<16 - 1
	for left := window; left > 0; left -= maxFrame {
		if err := s.WriteData(id, false, make([]byte, min(left, maxFrame))); err != nil {
			return err
		}
	}
	return nil
}

func overflowing(s *served, id uint32) error {
	some := make([]byte, maxFrame)
	return opened(repeat(func(s *served, id uint32) error { return s.WriteData(id, false, some) }))(s, id)
}
