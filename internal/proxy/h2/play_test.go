package h2_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// uploaded is the body of an upload.
var uploaded = bytes.Repeat([]byte{'u'}, 200<<10)

var errGivenUp = errors.New("given up")

// stage is the server's side while a schedule is played.
type stage struct {
	nc     net.Conn
	heard  chan struct{} // closed when nobody takes anything in any more; nil while nobody does
	cancel []context.CancelCauseFunc
	done   int  // acts
	all    bool // it takes in whatever comes: the client would read nothing meanwhile
}

// hear takes in what the client sends.
func (s *stage) hear() {
	if s.heard != nil {
		return
	}
	_ = s.nc.SetReadDeadline(time.Time{})
	heard := make(chan struct{})
	s.heard = heard
	go func() {
		defer close(heard)
		_, _ = io.Copy(io.Discard, s.nc)
	}()
}

// deaf leaves it where it is.
func (s *stage) deaf() {
	if s.heard == nil || s.all {
		return
	}
	_ = s.nc.SetReadDeadline(time.Unix(1, 0))
	<-s.heard
	s.heard = nil
}

// end hangs up, and lets nobody wait.
func (s *stage) end() {
	_ = s.nc.Close()
	for _, cancel := range s.cancel {
		cancel(nil)
	}
	if s.heard != nil {
		<-s.heard
	}
}

// until does what is due when so many bytes were written.
func (s *stage) until(acts []act, at int) {
	for ; s.done < len(acts) && acts[s.done].at <= at; s.done++ {
		switch a := acts[s.done]; a.what {
		case actDeaf:
			s.deaf()
		case actHear:
			s.hear()
		case actCancel:
			s.cancel[a.call](errGivenUp)
		}
		synctest.Wait()
	}
}

// allow lets the client send all of every request.
func (s *stage) allow(requests int) {
	const plenty = 16 << 20
	var raw bytes.Buffer
	fr := http2.NewFramer(&raw, nil)
	_ = fr.WriteWindowUpdate(0, plenty)
	for i := range requests {
		_ = fr.WriteWindowUpdate(uint32(2*i+1), plenty)
	}
	_, _ = s.nc.Write(raw.Bytes()) // it may be gone
	synctest.Wait()
}

// play returns what the callers of a client see of a schedule. It has to run in a
// bubble.
func play(s *schedule, writes [][]byte, start func(net.Conn) (player, error)) ([]outcome, error) {
	client, server := net.Pipe()
	at := &stage{nc: server}
	var wg sync.WaitGroup
	defer wg.Wait()
	at.hear()
	defer at.end()
	wg.Go(func() { _ = http2.NewFramer(server, nil).WriteSettings(s.settings...) })
	p, err := start(client)
	if err != nil {
		return nil, err
	}
	defer p.close()
	at.all = !p.readsOn()
	synctest.Wait()
	var mu sync.Mutex
	outcomes := make([]outcome, len(s.requests))
	hungUp := false
	for i, kind := range s.requests {
		ctx, cancel := context.WithCancelCause(nowhere)
		at.cancel = append(at.cancel, cancel)
		wg.Go(func() {
			o := p.call(ctx, kind)
			mu.Lock()
			defer mu.Unlock()
			o.kind, o.over, o.early = kind, true, !hungUp
			outcomes[i] = o
		})
		synctest.Wait()
	}
	written := 0
	for _, part := range writes {
		at.until(s.acts, written)
		if _, err := server.Write(part); err != nil {
			break
		}
		written += len(part)
		synctest.Wait()
	}
	at.until(s.acts, written)
	at.hear()
	synctest.Wait()
	if slices.Contains(s.requests, kindUpload) {
		at.allow(len(s.requests))
	}
	stuck := p.unsent() > 0
	time.Sleep(time.Second)
	mu.Lock()
	hungUp = true
	mu.Unlock()
	_ = server.Close()
	time.Sleep(time.Minute)
	mu.Lock()
	defer mu.Unlock()
	for i := range outcomes {
		outcomes[i].stuck = stuck
	}
	return slices.Clone(outcomes), nil
}
