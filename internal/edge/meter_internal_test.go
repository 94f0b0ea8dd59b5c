package edge

import (
	"bytes"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/limiter"
)

// session is a connection on a clock of its own.
type session struct {
	t   *testing.T
	m   *meter
	now time.Time

	unpaid float64 // frames that nothing explains, for which it would wait beside others of its address

	next uint32
	raw  bytes.Buffer
	fr   *http2.Framer
}

func newSession(t *testing.T) *session {
	t.Helper()
	s := &session{t: t, now: time.Unix(1, 0), next: 1}
	s.m = newMeter(s.now, &usual)
	s.fr = http2.NewFramer(&s.raw, nil)
	s.m.received([]byte(http2.ClientPreface), s.now)
	return s
}

// flush has the meter count what was written.
func (s *session) flush() (kind, bool) {
	defer s.raw.Reset()
	return s.m.received(s.raw.Bytes(), s.now)
}

// pass flushes, and fails the test where the peer would be cut off. Then time passes.
func (s *session) pass(d time.Duration) {
	s.t.Helper()
	if k, tooMany := s.flush(); tooMany {
		s.t.Fatalf("cut off after %s: %v", s.now.Sub(time.Unix(1, 0)), k)
	}
	s.unpaid += s.m.unpaid()
	s.now = s.now.Add(d)
}

func (s *session) open(end bool) uint32 {
	id := s.next
	s.next += 2
	_ = s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: make([]byte, 60), EndHeaders: true, EndStream: end})
	return id
}

// recorded has what was written come in so many records of TLS, beside some that carry nothing.
func (s *session) recorded(n, idle int) {
	s.t.Helper()
	s.pass(0)
	if k, tooMany := s.m.recorded(n+idle, idle, s.now); tooMany {
		s.t.Fatalf("cut off after %s: %v", s.now.Sub(time.Unix(1, 0)), k)
	}
}

// answer has the server send so many frames with a byte in each.
func (s *session) answer(frames int) {
	for range frames {
		s.data(1)
	}
}

// data has the server send a frame of so many bytes.
func (s *session) data(n int) {
	var out bytes.Buffer
	_ = http2.NewFramer(&out, nil).WriteData(1, false, make([]byte, n))
	s.m.sent(out.Bytes())
}

// decoded has the fields that came last be so much larger than their block.
func (s *session) decoded(n int) {
	s.t.Helper()
	if s.m.decoded(n, s.now); s.m.left[headerBytes] < 0 {
		s.t.Fatalf("cut off after %s: %v", s.now.Sub(time.Unix(1, 0)), headerBytes)
	}
}

func (s *session) served() { s.m.served(s.m.billed) }

// Honest peers, for as long as they like: what the allowances are measured by.
func TestMeter_LeavesHonestPeersAlone(t *testing.T) {
	t.Parallel()
	for name, use := range honest {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSession(t)
			use(s)
			const rare = 100 // a second
			if most := rare * (1 + s.now.Sub(time.Unix(1, 0)).Seconds()); s.unpaid > most {
				t.Errorf("nothing explains %v of the frames, want %v at most", s.unpaid, most)
			}
		})
	}
}

// honest is how peers use a connection.
var honest = map[string]func(s *session){
	"ten thousand short calls a second": func(s *session) {
		for range 6_000 {
			_ = s.fr.WriteData(s.open(false), true, []byte("x"))
			_ = s.fr.WriteWindowUpdate(0, 1)
			s.answer(1)
			s.served()
			s.pass(100 * time.Microsecond)
		}
	},
	"a thousand calls cancelled at once, every ten seconds": func(s *session) {
		for range 5 {
			for range 1000 {
				_ = s.fr.WriteRSTStream(s.open(true), http2.ErrCodeCancel)
			}
			s.pass(10 * time.Second)
		}
	},
	"ten thousand short calls a second, of 1 KiB of metadata each": func(s *session) {
		s.m.bill()
		for range 20_000 {
			_ = s.fr.WriteData(s.open(false), true, []byte("x"))
			s.decoded(2 << 10)
			s.answer(1)
			s.served()
			s.pass(100 * time.Microsecond)
		}
	},
	"the same of nobody": func(s *session) {
		for range 20_000 {
			_ = s.fr.WriteData(s.open(false), true, []byte("x"))
			s.decoded(2 << 10)
			s.answer(1)
			s.served()
			s.pass(100 * time.Microsecond)
		}
	},
	"as many calls at once as a connection has streams, of 12 KiB of metadata each": func(s *session) {
		s.m.bill()
		for range 256 {
			s.open(false)
			s.decoded(12 << 10)
		}
		s.pass(0)
	},
	"a thousand calls of 1 KiB of metadata cancelled at once, every ten seconds": func(s *session) {
		s.m.bill()
		for range 10 {
			for range 1000 {
				_ = s.fr.WriteRSTStream(s.open(true), http2.ErrCodeCancel)
				s.decoded(2 << 10)
			}
			s.pass(10 * time.Second)
		}
	},
	"every other call is cancelled": func(s *session) {
		for range 2_500 {
			_ = s.fr.WriteRSTStream(s.open(true), http2.ErrCodeCancel)
			s.open(true)
			s.answer(1)
			s.served()
			s.pass(100 * time.Microsecond)
		}
	},
	"watches opened and given up": func(s *session) {
		for range 2_500 {
			id := s.open(false)
			_ = s.fr.WriteData(id, true, []byte("watch"))
			s.answer(1)
			_ = s.fr.WriteRSTStream(id, http2.ErrCodeCancel)
			s.pass(10 * time.Millisecond)
		}
	},
	"a keep-alive every ten seconds, for a day": func(s *session) {
		for range 8640 {
			_ = s.fr.WritePing(false, [8]byte{})
			s.pass(10 * time.Second)
		}
	},
	"gRPC-Go measures the connection during an upload": func(s *session) {
		id := s.open(false)
		for range 3_000 {
			_ = s.fr.WriteData(id, false, make([]byte, 1024))
			_ = s.fr.WritePing(false, [8]byte{2, 4, 16, 16, 9, 14, 7, 7})
			s.pass(50 * time.Microsecond)
		}
	},
	"gRPC-Go measures the connection during a download": func(s *session) {
		id := s.open(true)
		for range 3_000 {
			s.data(1024)
			_ = s.fr.WritePing(false, [8]byte{2, 4, 16, 16, 9, 14, 7, 7})
			_ = s.fr.WriteWindowUpdate(0, 1024)
			_ = s.fr.WriteWindowUpdate(id, 1024)
			s.pass(50 * time.Microsecond)
		}
	},
	"a download that is read in steps of 4 KiB, as net/http does": func(s *session) {
		id := s.open(true)
		for range 4_000 {
			s.data(16 << 10)
			for range 4 {
				_ = s.fr.WriteWindowUpdate(0, 4<<10)
				_ = s.fr.WriteWindowUpdate(id, 4<<10)
			}
			s.pass(50 * time.Microsecond)
		}
	},
	"frames of a byte, whose heads come in records of their own": func(s *session) {
		id := s.open(false)
		for range 20_000 {
			_ = s.fr.WriteData(id, false, []byte("x"))
			s.recorded(2, 0)
			s.pass(20 * time.Microsecond)
		}
	},
	"an upload in short records": func(s *session) {
		id := s.open(false)
		for range 2_000 {
			_ = s.fr.WriteData(id, false, make([]byte, 16<<10))
			s.recorded(1_000, 0)
			s.pass(time.Millisecond)
		}
	},
	"a new key with each MiB": func(s *session) {
		id := s.open(false)
		for range 2_000 {
			_ = s.fr.WriteData(id, false, make([]byte, 16<<10))
			s.recorded(65, 1)
			s.pass(100 * time.Millisecond)
		}
	},
	"a download that waits in the client for its reader": func(s *session) {
		for range 20 {
			for range 512 {
				s.data(16 << 10)
			}
			for range 8 << 20 / (4 << 10) {
				_ = s.fr.WriteWindowUpdate(0, 4<<10)
				_ = s.fr.WriteWindowUpdate(1, 4<<10)
			}
			s.pass(10 * time.Millisecond)
		}
	},
}

// The same without what explains it is a flood.
func TestMeter_CutsOffWhatNothingExplains(t *testing.T) {
	t.Parallel()
	for want, write := range map[kind]func(s *session){
		resets:     func(s *session) { _ = s.fr.WriteRSTStream(s.open(true), http2.ErrCodeCancel) },
		pings:      func(s *session) { _ = s.fr.WritePing(false, [8]byte{}) },
		windows:    func(s *session) { _ = s.fr.WriteWindowUpdate(0, 1) },
		settings:   func(s *session) { _ = s.fr.WriteSettings() },
		priorities: func(s *session) { _ = s.fr.WritePriority(1, http2.PriorityParam{}) },
		empties:    func(s *session) { _ = s.fr.WriteData(1, false, nil) },
		others:     func(s *session) { _ = s.fr.WriteRawFrame(0xee, 0, 0, nil) },
		headerBytes: func(s *session) {
			_ = s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 16<<10), EndHeaders: true})
		},
	} {
		t.Run(want.String(), func(t *testing.T) {
			t.Parallel()
			s := newSession(t)
			for range 20_000 {
				write(s)
				if k, tooMany := s.flush(); tooMany {
					if k != want {
						t.Errorf("cut off for %v", k)
					}
					return
				}
				s.now = s.now.Add(time.Millisecond)
			}
			t.Error("never cut off")
		})
	}
}

// tooMuch plays what somebody does until that is too much, and returns how often it was done.
func tooMuch(t *testing.T, s *session, of kind, most int, play func(n int)) int {
	t.Helper()
	for n := range most {
		play(n)
		k, cut := s.flush()
		if cut = cut || s.m.left[of] < 0; cut {
			if k != of && s.m.left[of] >= 0 {
				t.Errorf("cut off for %v", k)
			}
			return n
		}
		s.now = s.now.Add(100 * time.Microsecond)
	}
	t.Errorf("not cut off: %v left", s.m.left[of])
	return most
}

// Requests that nobody in particular makes pay for short heads, and so does a connection whose plugin is known
// where they are for everybody: what a probe earns pays for no storm of heads.
func TestAudit_H48_ProbesPayForNoLongHeads(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		billed bool
		most   int
	}{"of nobody": {false, 20}, "of a plugin": {true, 160}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSession(t)
			if tt.billed {
				s.m.bill()
			}
			n := tooMuch(t, s, headerBytes, 10_000, func(int) {
				s.open(true)
				s.m.decoded(30<<10, s.now)
				s.answer(1)
				s.m.served(false)
			})
			if n > tt.most {
				t.Errorf("cut off after %d requests of 30 KiB, want %d at most", n, tt.most)
			}
		})
	}
}

// An account that pays gives a connection its burst once.
func TestMeter_IsBilledOnce(t *testing.T) {
	t.Parallel()
	s := newSession(t)
	s.m.decoded(1000, s.now)
	for range 3 {
		s.m.bill()
	}
	if got, want := s.m.left[headerBytes], allowances[headerBytes].burst-1000; got != want {
		t.Errorf("%v bytes are left, want %v", got, want)
	}
}

// However large heads may be, one that is read to its end though it is eight times as large is free.
func TestMeter_HasRoomForOneHead(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 32 << 10, 1 << 20} {
		r := usual
		r.heads(float64(size))
		s := newSession(t)
		s.m = newMeter(s.now, &r)
		s.decoded(8 * max(size, 32<<10))
		s.m.bill()
		s.decoded(8 * max(size, 32<<10))
		for range 100 {
			s.m.served(true)
			s.decoded(2 * size)
		}
	}
	if usual.of != allowances {
		t.Error("another listener has what was made of this one's")
	}
}

// Whoever reads through windows of a byte has a frame for each of its WINDOW_UPDATEs, and none of them explains
// the next one: bytes do.
func TestAudit_H48_WindowsOfAByteEarnNothing(t *testing.T) {
	t.Parallel()
	s := newSession(t)
	s.m.bill()
	const most = 6_000
	if n := tooMuch(t, s, windows, 4*most, func(int) {
		_ = s.fr.WriteWindowUpdate(1, 1)
		s.data(1)
	}); n > most {
		t.Errorf("cut off after %d WINDOW_UPDATEs, want %d at most", n, most)
	}
}

// A peer answers the PINGs of the server, however many these are, and no more of them than there were.
func TestAudit_H48_AnswersToPingsAreNoFlood(t *testing.T) {
	t.Parallel()
	const asked = 1000
	s := newSession(t)
	var out bytes.Buffer
	for range asked {
		_ = http2.NewFramer(&out, nil).WritePing(false, [8]byte{})
	}
	_ = http2.NewFramer(&out, nil).WritePing(true, [8]byte{}) // an answer, to which there is none
	s.m.sent(out.Bytes())
	for range asked {
		_ = s.fr.WritePing(true, [8]byte{})
	}
	s.pass(0)
	for range int(allowances[pings].burst) + 1 {
		_ = s.fr.WritePing(true, [8]byte{})
	}
	if k, tooMany := s.flush(); !tooMany || k != pings {
		t.Errorf("answers to PINGs that there were not: %v, %t", k, tooMany)
	}
}

// Of many connections of one address few begin with all that is free of header blocks: heads on many cost no more than
// on some. Those of another have theirs.
func TestAudit_H48_HeadsOnManyConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		key := "one"
		l := &Listener{cfg: Config{Key: func(net.Addr) string { return key }}, rules: usual, ample: limiter.New(2)}
		near, _ := net.Pipe()
		s := &slot{conn: &audible{Conn: near}}
		come := func() (free float64) { return l.newMeter(s).left[headerBytes] }
		want := func(what string, n int, free float64) {
			t.Helper()
			for i := range n {
				if got := come(); got != free {
					t.Fatalf("%s %d of %d has %v bytes free, want %v", what, i+1, n, got, free)
				}
			}
		}
		all := usual.nobody.burst
		want("connection", 32, all)
		want("the next", 10, all/8)
		time.Sleep(time.Second)
		want("a second later", 4, all)
		want("the next", 1_000, all/8)
		key = "another"
		want("of another", 32, all)
		if room := all / 8; room < 2*(32<<10) {
			t.Errorf("there is room for %v bytes, which is not two heads", room)
		}
	})
}
