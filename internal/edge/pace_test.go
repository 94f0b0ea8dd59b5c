package edge_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// Requests with many fields wait for one another: on all connections of who pays, or else of an address.
func TestAudit_ATK14_ManyFieldsWaitTheirTurn(t *testing.T) {
	t.Parallel()
	const each, requests = 16 * time.Millisecond, 10
	fields := 20 * 16 * runtime.GOMAXPROCS(0) // as much as is taken on in that time
	here, there := "127.0.0.1", "127.0.0.2"
	server, client := certificate(t)
	for name, tt := range map[string]struct {
		fields int
		pays   *edge.Account
		from   []string
		takes  time.Duration
	}{
		"one connection":       {fields, nil, []string{here}, requests * each},
		"three of an address":  {fields, nil, []string{here, here, here}, 3 * requests * each},
		"three of an identity": {fields, account(1e9, 1e9), []string{here, there, "127.0.0.3"}, 3 * requests * each},
		"of two addresses":     {fields, nil, []string{here, there}, requests * each},
		"half as many":         {fields / 2, nil, []string{here}, requests * each / 2},
		"the usual":            {0, nil, []string{here, here, here}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client, fields: tt.fields, account: tt.pays}
				b.serve(t, server)
				close(b.release)
				begun := time.Now()
				for _, from := range tt.from {
					b.pourFrom(t, from, requests)
				}
				for b.begun.Load() < int64(requests*len(tt.from)) && time.Since(begun) < time.Minute {
					time.Sleep(each / 16)
					synctest.Wait()
				}
				if took := time.Since(begun); took < tt.takes*3/4 || took > tt.takes*5/4+each {
					t.Errorf("%d requests take %v to begin, want %v", b.begun.Load(), took, tt.takes)
				}
			})
		})
	}
}

// Who was cut off and comes again is served later, the more often that was the later, and not for ever.
func TestAudit_ATK14_WhoWasCutOffComesLater(t *testing.T) {
	t.Parallel()
	const all = 200
	server, client := certificate(t)
	for cuts, waits := range map[int]time.Duration{1: 500 * time.Millisecond, 2: time.Second, 10: 2 * time.Second} {
		t.Run(waits.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client, account: account(1e9, 1e9), cuts: make(chan struct{})}
				b.serve(t, server)
				close(b.release)
				first := b.account
				if !first.Whole(time.Now()) {
					t.Error("something of a new account is missing")
				}
				for range cuts {
					b.pour(t, 1)
				}
				synctest.Wait()
				close(b.cuts)
				synctest.Wait()
				b.cuts = nil
				b.account = first.Beside(edge.Rate{PerSecond: 1e9, Burst: 1e9}, edge.Rate{PerSecond: 1e9, Burst: 1e9}) // of another of the same
				if time.Sleep(10 * time.Millisecond); first.Whole(time.Now()) {                                        // its bytes are paid for by then
					t.Error("nothing is missing of an account that was cut off")
				}
				before := b.begun.Load()
				b.pour(t, all)
				time.Sleep(waits * 9 / 10)
				synctest.Wait()
				if n := b.begun.Load() - before; before != int64(cuts) || n > 2 {
					t.Errorf("%d were cut off, and %d requests begin just before %v have passed", before, n, waits)
				}
				time.Sleep(waits / 4)
				synctest.Wait()
				if n := b.begun.Load() - before; n != all {
					t.Errorf("%d of %d have begun later", n, all)
				}
				if time.Sleep(time.Minute); !first.Whole(time.Now()) {
					t.Error("something of it is missing a minute later")
				}
			})
		})
	}
}

// A newcomer that is refused is closed a little later, and many are closed at once. The end waits for none.
func TestAudit_ATK14_WhoIsRefusedAtTheDoorComesLater(t *testing.T) {
	t.Parallel()
	const linger, together, kept, more = 200 * time.Millisecond, 10 * time.Millisecond, 256, 10
	server, _ := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		below := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
		l := edge.Listen(below, edge.Config{
			TLS: server, HandshakeTimeout: time.Hour, MaxConnections: 1000, MaxPerAddress: 1000, Silence: time.Second,
			PerSecond: 1e-9, Burst: 1, Key: func(net.Addr) string { return "one" },
		})
		_ = knock(t, below)
		synctest.Wait() // it has the place, and none of the others
		var refused []net.Conn
		for range kept + 1 + more { // of which the first is waited for already
			refused = append(refused, knock(t, below))
		}
		synctest.Wait()
		if n := open(t, refused); n < kept || n > kept+1 {
			t.Errorf("%d of %d are open at once, want %d", n, len(refused), kept)
		}
		time.Sleep(linger - time.Millisecond)
		if n := open(t, refused); n < kept {
			t.Errorf("%d are open a moment before their time", n)
		}
		time.Sleep(2*time.Millisecond + together)
		if n := open(t, refused); n != 0 {
			t.Errorf("%d are open after their time", n)
		}
		last := knock(t, below)
		begun := time.Now()
		l.End()
		if took := time.Since(begun); took > 0 || open(t, []net.Conn{last}) != 0 {
			t.Errorf("the end takes %v", took)
		}
	})
}

// open counts the connections that are not closed.
func open(t *testing.T, all []net.Conn) (n int) {
	t.Helper()
	synctest.Wait()
	for _, c := range all {
		if err := c.SetReadDeadline(time.Now()); err != nil {
			continue
		}
		_, err := c.Read(make([]byte, 1))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			n++
		case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe):
			t.Error(err)
		}
	}
	return n
}

// Between the TLS handshakes of an address the processors are others' for as long as one took, and never for long.
func TestAudit_ATK14_HandshakesOfAnAddressLeaveTime(t *testing.T) {
	t.Parallel()
	const all = 8
	server, client := certificate(t)
	for work, pause := range map[time.Duration]time.Duration{
		2 * time.Millisecond: 2 * time.Millisecond, 20 * time.Millisecond: 5 * time.Millisecond,
	} {
		t.Run(work.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := server.Clone()
				at := make(chan time.Time, 1)
				server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
					at <- time.Now()
					time.Sleep(work) // in the bubble
					return nil, nil  //nolint:nilnil // as it is
				}
				b := &bubble{client: client}
				b.serve(t, server)
				turns := max(1, runtime.GOMAXPROCS(0)/2)
				for range all * turns {
					c := b.dial(t, "127.0.0.2")
					go func() { _ = c.HandshakeContext(t.Context()) }()
				}
				first := <-at
				for range all*turns - 2 {
					<-at
				}
				last := <-at
				if took, want := last.Sub(first), (all-1)*(work+pause); took != want {
					t.Errorf("%d handshakes begin within %v, want %v", all, took, want)
				}
			})
		})
	}
}

// Frames of DATA with next to nothing in them wait for one another as requests with many fields do, whoever pays.
func TestAudit_H48_LittleDataWaitsItsTurn(t *testing.T) {
	t.Parallel()
	const each, room = 16 * time.Millisecond, 900_000 // bytes that a connection takes before they are read
	atOnce := 40 * 16 * runtime.GOMAXPROCS(0)
	server, client := certificate(t)
	for name, tt := range map[string]struct {
		bytes int
		pays  *edge.Account
		waits bool
	}{
		"of a byte":           {1, nil, true},
		"of 63":               {63, nil, true},
		"of 64":               {64, nil, false},
		"of a byte, paid for": {1, account(1e9, 1e9), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				frames := min(room/tt.bytes, 10*atOnce)
				if frames < 2*atOnce {
					t.Skip("so many wait for nobody on so many processors")
				}
				b := &bubble{client: client, account: tt.pays}
				b.serve(t, server)
				c := b.dial(t, "127.0.0.1")
				go func() { _, _ = io.Copy(io.Discard, c) }()
				begin, data := http2.NewFramer(c, nil), bytes.Buffer{}
				var block bytes.Buffer
				enc := hpack.NewEncoder(&block)
				for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/"}} {
					_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
				}
				_, err := io.WriteString(c, http2.ClientPreface)
				err = errors.Join(err, begin.WriteSettings(), begin.WriteHeaders(http2.HeadersFrameParam{
					StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true,
				}))
				little := http2.NewFramer(&data, nil)
				for range frames {
					err = errors.Join(err, little.WriteData(1, false, make([]byte, tt.bytes)))
				}
				begun := time.Now()
				if _, failed := c.Write(data.Bytes()); err != nil || failed != nil {
					t.Fatal(err, failed)
				}
				synctest.Wait()
				least := time.Duration(frames-atOnce) * each / time.Duration(atOnce) / 2
				if took := time.Since(begun); tt.waits && took < least || !tt.waits && took > 0 {
					t.Errorf("%d frames take %v to be read, want %v at least: %t", frames, took, least, tt.waits)
				}
				close(b.release)
			})
		})
	}
}

// Requests that are refused or given up wait for one another on all connections of an address for which nobody pays, and so do
// those that anybody is answered, of which there may be five times as many.
func TestAudit_ATK14_WhatComesToNothingWaitsItsTurn(t *testing.T) {
	t.Parallel()
	const each = 16 * time.Millisecond
	n := min(1500, 10*16*runtime.GOMAXPROCS(0))
	takes := time.Duration(n) * each / time.Duration(16*runtime.GOMAXPROCS(0)) // on one connection
	here, there := "127.0.0.1", "127.0.0.2"
	server, client := certificate(t)
	for name, tt := range map[string]struct {
		comes outcome
		from  []string
		waits time.Duration
	}{
		"refused":                    {isRefused, slices.Repeat([]string{here}, 3), 3 * takes},
		"refused, of two addresses":  {isRefused, []string{here, there}, takes},
		"given up":                   {isGivenUp, slices.Repeat([]string{here}, 3), 3 * takes},
		"answered":                   {isAnswered, slices.Repeat([]string{here}, 10), 2 * takes},
		"answered, of two addresses": {isAnswered, slices.Repeat([]string{here, there}, 5), takes},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client, excused: edge.Rate{PerSecond: 1e9, Burst: 1e9}}
				b.refuses.Store(tt.comes == isRefused)
				b.answers.Store(tt.comes == isAnswered)
				b.serve(t, server)
				begun := time.Now()
				for _, from := range tt.from {
					b.throw(t, from, uint32(n), tt.comes == isGivenUp)
				}
				for b.begun.Load() < int64(n*len(tt.from)) && time.Since(begun) < time.Minute {
					time.Sleep(each / 16)
					synctest.Wait()
				}
				if took := time.Since(begun); took < (tt.waits-each)*3/4 || took > 2*tt.waits+each {
					t.Errorf("%d requests take %v to begin, want %v", b.begun.Load(), took, tt.waits)
				}
				close(b.release)
			})
		})
	}
}

// outcome is what becomes of a request.
type outcome int

const (
	isRefused outcome = iota
	isGivenUp
	isAnswered
)

// throw sends so many requests in one piece, each of which is given up at once if gaveUp is set, and reads whatever comes.
func (b *bubble) throw(t *testing.T, address string, n uint32, gaveUp bool) {
	t.Helper()
	c := b.dial(t, address)
	var block, out bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	err := f.WriteSettings()
	for i := range n {
		err = errors.Join(err, f.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 2*i + 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true,
		}))
		if gaveUp {
			err = errors.Join(err, f.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = c.Write(out.Bytes())
		_, _ = io.Copy(io.Discard, c)
	}()
}
