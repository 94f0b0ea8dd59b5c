package h2_test

import (
	"slices"
	"strings"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame/frametest"
)

// schedule is what a server does with a few requests: frames, and how they are cut
// into writes.
type schedule struct {
	*frametest.Sheet

	requests []int // the kinds of the requests
	settings []http2.Setting
	writes   [][]byte
	written  int // bytes of them
	acts     []act
	heads    map[uint32]bool // of streams that have their head
}

const (
	kindGet = iota
	kindPost
	kindEndless // the request never ends
	kindUpload  // it is larger than any window at first
	kinds
)

// act is what happens beside the frames, once so many bytes were written.
type act struct {
	at   int
	what int
	call int // which, where it is about one
}

const (
	actDeaf   = iota // the server takes nothing in from now on
	actHear          // it does again
	actCancel        // a caller gives up
)

const mostFrames = 60

func newSchedule(seed []byte) *schedule {
	s := &schedule{Sheet: frametest.NewSheet(seed), heads: map[uint32]bool{}}
	for range 1 + s.Roll(4) {
		s.requests = append(s.requests, s.Roll(kinds))
	}
	if s.Roll(3) > 0 {
		s.settings = append(s.settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100})
	}
	frames := 0
	for ; !s.Done() && frames < mostFrames; frames++ {
		s.frame()
		if s.Roll(3) == 0 {
			s.cut()
		}
	}
	s.Mutate()
	s.cut()
	return s
}

// cut ends a write, now and then within a frame.
func (s *schedule) cut() {
	s.writes = append(s.writes, s.Cut(40)...)
	s.written = len(slices.Concat(s.writes...))
}

// act has something happen after the frames so far.
func (s *schedule) act(what, call int) {
	s.cut()
	s.acts = append(s.acts, act{s.written, what, call})
}

// single returns what is written, one frame in each write, or less where something happens.
func (s *schedule) single() [][]byte {
	const head = 9
	raw := slices.Concat(s.writes...)
	var all [][]byte
	at, acts := 0, s.acts
	for len(raw) > 0 {
		n := len(raw)
		if n >= head {
			n = min(n, head+int(raw[0])<<16+int(raw[1])<<8+int(raw[2]))
		}
		for len(acts) > 0 && acts[0].at <= at {
			acts = acts[1:]
		}
		for next := 0; next < n; { // the bytes of one frame, in pieces
			end := n
			if len(acts) > 0 && acts[0].at < at+n {
				end, acts = max(next, acts[0].at-at), acts[1:]
			}
			if end > next {
				all = append(all, raw[next:end])
			}
			next = end
		}
		at, raw = at+n, raw[n:]
	}
	return all
}

// stream is a stream of a request, mostly.
func (s *schedule) stream() uint32 {
	if n := s.Roll(40); n > 37 {
		return uint32(n - 38) // 0 or 1
	}
	return uint32(2*s.Roll(len(s.requests)) + 1)
}

func (s *schedule) frame() {
	id := s.stream()
	switch s.Roll(24) {
	case 0, 1, 2, 3, 4:
		s.response(id)
	case 5, 6, 7, 8:
		s.data(id)
	case 9, 10:
		s.trailer(id)
	case 11:
		_ = s.Frames.WriteRSTStream(id, http2.ErrCode(s.Roll(15)))
	case 12:
		_ = s.Frames.WriteGoAway(uint32(s.Roll(9)), http2.ErrCode(s.Roll(14)), []byte(s.One("", "text")))
	case 13:
		s.Settings()
	case 14:
		_ = s.Frames.WritePing(s.Roll(2) == 1, [8]byte{})
	case 15:
		_ = s.Frames.WriteWindowUpdate(s.one2(0, id), s.increment())
	case 16:
		_ = s.Frames.WriteRawFrame(http2.FrameType(0x20), http2.Flags(s.Roll(256)), id, []byte("unknown"))
	case 17:
		_ = s.Frames.WritePriority(id, http2.PriorityParam{StreamDep: uint32(s.Roll(8)), Weight: 1})
	case 18:
		s.odd(id)
	case 19, 20:
		s.stall()
	case 21:
		s.act(s.Roll(3), s.Roll(len(s.requests)))
	default:
		_ = s.Frames.WriteSettingsAck()
	}
}

// increment is one of a window. How much of an upload was sent is the client's own affair; so
// where there is one, none is as large as to depend on that.
func (s *schedule) increment() uint32 {
	all := []uint32{1, 100, 1 << 16, 1<<31 - 1}
	if slices.Contains(s.requests, kindUpload) {
		all[3] = 1 << 20
	}
	return all[s.Roll(len(all))]
}

// stall lets a request go on to a server that takes nothing in, and something happen to it
// meanwhile.
func (s *schedule) stall() {
	call := max(0, slices.Index(s.requests, kindUpload))
	if s.Roll(4) == 1 {
		call = s.Roll(len(s.requests))
	}
	id := uint32(2*call + 1)
	s.act(actDeaf, call)
	if s.Roll(3) > 0 {
		_ = s.Frames.WriteWindowUpdate(0, s.increment())
	}
	if s.Roll(3) > 0 {
		_ = s.Frames.WriteWindowUpdate(id, s.increment())
	} else {
		s.Settings()
	}
	s.cut()
	switch s.Roll(7) {
	case 0, 1:
		_ = s.Frames.WriteRSTStream(id, http2.ErrCode(s.Roll(15)))
	case 2:
		s.trailer(id)
	case 3:
		_ = s.Frames.WriteData(id, true, nil)
	case 4:
		_ = s.Frames.WriteGoAway(uint32(s.Roll(9)), http2.ErrCodeNo, nil)
	case 5:
		s.act(actCancel, call)
	default:
	}
	if s.Roll(4) > 0 {
		s.act(actHear, call)
	}
}

func (s *schedule) one2(a, b uint32) uint32 {
	if s.Roll(2) == 0 {
		return a
	}
	return b
}

// odd is what servers do not send.
func (s *schedule) odd(id uint32) {
	switch s.Roll(6) {
	case 0:
		_ = s.Frames.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: s.Fields(":method", "GET"), EndHeaders: true})
	case 1:
		_ = s.Frames.WriteContinuation(id, true, s.Fields("a", "b"))
	case 2:
		_ = s.Frames.WriteData(uint32(s.Roll(100)), s.Roll(2) == 1, []byte("x"))
	case 3:
		_ = s.Frames.WriteRawFrame(http2.FrameType(s.Roll(10)), http2.Flags(s.Roll(64)), id, make([]byte, s.Roll(12)))
	case 4:
		_ = s.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x40, 0x01}, EndHeaders: true})
	default:
		_ = s.Frames.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, id, []byte{byte(s.Roll(8)), 1, 2, 3})
	}
}

func (s *schedule) response(id uint32) {
	if s.heads[id] && s.Roll(8) > 0 {
		s.data(id)
		return
	}
	status := s.One("200", "200", "200", "200", "404", "204", "304", "100", "103", "103", "101", "999", "abc", "20", "")
	s.heads[id] = s.heads[id] || status >= "2"
	list := []string{":status", status}
	for range s.Roll(4) {
		list = append(list, s.field()...)
	}
	if n := s.Roll(6); n < 2 {
		list = append(list, "content-length", s.One("0", "5", "10", "300", "x", "-1"))
	}
	s.headers(id, list)
}

func (s *schedule) field() []string {
	return []string{
		s.One("a", "b", "content-type", "set-cookie", "date", "grpc-status", "x-y", "Upper", "sp ace", ":path", ""),
		s.One("", "x", "hello", "a, b", "0", "\x01", strings.Repeat("z", 200), strings.Repeat("~", 5<<10)),
	}
}

func (s *schedule) trailer(id uint32) {
	list := []string{"grpc-status", s.One("0", "5")}
	for range s.Roll(3) {
		list = append(list, s.field()...)
	}
	if s.Roll(20) == 1 {
		list = append([]string{":status", "200"}, list...)
	}
	s.headers(id, list)
}

func (s *schedule) headers(id uint32, list []string) {
	s.Headers(id, func() bool { return s.Roll(3) == 1 }, list)
}

func (s *schedule) data(id uint32) { s.Data(id, 0, 0, 5, 5, 10, 300, 1000) }
