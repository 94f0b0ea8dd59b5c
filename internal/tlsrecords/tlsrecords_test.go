package tlsrecords_test

import (
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tlsrecords"
)

// Records of TLS are found wherever what comes is cut.
func TestRecordsAreFound(t *testing.T) {
	t.Parallel()
	var stream []byte
	const n = 40
	for i := range n {
		stream = append(append(stream, 23, 3, 3, byte(i%3), byte(i)), make([]byte, i%3<<8+i)...)
	}
	for _, piece := range []int{1, 2, 3, 4, 5, 6, 7, 100, 1_000, len(stream)} {
		var f tlsrecords.Finder
		for at := 0; at < len(stream); at += piece {
			f.Find(stream[at:min(at+piece, len(stream))])
		}
		got, pieces := f.Take()
		if reads := (len(stream) + piece - 1) / piece; got != n || pieces < reads-n || pieces > reads {
			t.Errorf("in pieces of %d: %d reads of %d had no end of a record", piece, pieces, reads)
		}
		if got != n {
			t.Errorf("in pieces of %d: %d records of %d", piece, got, n)
		}
		f.Find(stream[:6])
		if n, _ := f.Take(); n != 1 {
			t.Errorf("in pieces of %d: the next one is not found", piece)
		}
	}
}

// What is free is so many at once and so many a second; what came before TLS was agreed on is, too.
func TestAudit_H48_RecordsThatAreFree(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	clock := func() time.Time { return now }
	var m tlsrecords.Meter
	send := func(n int) string {
		for range n {
			m.Find([]byte{23, 3, 3, 0, 1, 0})
		}
		return m.Count(clock)
	}
	want := func(when, got, want string) {
		t.Helper()
		if got != want {
			t.Fatalf("%s: %q, want %q", when, got, want)
		}
	}
	want("before TLS", send(100_000), "")
	m.Find([]byte{23, 3, 3, 0, 1, 0}) // the last of the handshake
	m.Begin(now)
	want("at once", send(tlsrecords.IdleBurst), "")
	now = now.Add(time.Second)
	want("a second later", send(tlsrecords.IdlePerSecond), "")
	want("one more", send(1), tlsrecords.TooManyIdle)

	m = tlsrecords.Meter{}
	m.Begin(now)
	full := func(n int) string {
		for range n {
			m.Carried(0)
		}
		return send(n)
	}
	want("at once", full(tlsrecords.ShortBurst), "")
	m.Frame()
	m.Carried(32)
	want("that a frame of 32 bytes explains", full(4), "")
	now = now.Add(time.Second)
	want("a second later", full(tlsrecords.ShortPerSecond), "")
	want("one more", full(1), tlsrecords.TooManyOfLittle)
	m = tlsrecords.Meter{}
	m.Begin(now)
	m.Find([]byte{23, 3, 3, 0x40, 0})
	for range tlsrecords.ShortBurst - 1 {
		m.Find([]byte{0})
	}
	want("pieces", m.Count(clock), "")
	m.Find([]byte{0})
	want("one more", m.Count(clock), tlsrecords.TooManyOfLittle)
	m = tlsrecords.Meter{}
	m.Begin(now)
	now = now.Add(time.Hour)
	want("an hour later", full(tlsrecords.ShortBurst), "")
}
