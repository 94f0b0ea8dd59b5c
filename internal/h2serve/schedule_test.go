package h2serve_test

import (
	"slices"
	"strings"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame/frametest"
)

// schedule is what a client sends: frames, and how they are cut into writes.
type schedule struct {
	*frametest.Sheet

	writes [][]byte
	next   uint32 // stream to be opened
}

const mostFrames = 60

func newSchedule(seed []byte) *schedule {
	s := &schedule{Sheet: frametest.NewSheet(seed), next: 1}
	if s.Roll(30) != 29 {
		_ = s.Frames.WriteSettings()
		_ = s.Frames.WriteSettingsAck()
	}
	s.request(s.opened())
	for frames := 0; !s.Done() && frames < mostFrames; frames++ {
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
func (s *schedule) cut() { s.writes = append(s.writes, s.Cut(60)...) }

// single returns what is written, one frame in each write.
func (s *schedule) single() [][]byte {
	const head = 9
	raw := slices.Concat(s.writes...)
	var all [][]byte
	for len(raw) >= head {
		n := min(len(raw), head+int(raw[0])<<16+int(raw[1])<<8+int(raw[2]))
		all, raw = append(all, raw[:n]), raw[n:]
	}
	if len(raw) > 0 {
		all = append(all, raw)
	}
	return all
}

// opened takes the next stream.
func (s *schedule) opened() uint32 {
	id := s.next
	s.next += 2
	if s.Roll(30) == 29 {
		s.next += 4
	}
	return id
}

// stream is one that was opened, mostly.
func (s *schedule) stream() uint32 {
	if n := s.Roll(50); n > 47 {
		return []uint32{0, s.next + 1}[n-48]
	}
	return uint32(2*s.Roll(int(s.next)/2) + 1)
}

func (s *schedule) frame() {
	switch s.Roll(20) {
	case 0, 1, 2, 3, 4:
		s.request(s.opened())
	case 5, 6, 7, 8, 9:
		s.data(s.stream())
	case 10:
		s.headers(s.stream(), s.Roll(8) != 1, []string{s.One("x-sum", "x-other", ":path", "content-length", "trailer"), "7"})
	case 11:
		_ = s.Frames.WriteRSTStream(s.stream(), http2.ErrCode(s.Roll(15)))
	case 12:
		if s.Roll(8) == 1 {
			_ = s.Frames.WriteGoAway(uint32(s.Roll(9)), http2.ErrCode(s.Roll(14)), []byte(s.One("", "text")))
		}
	case 13:
		s.Settings()
	case 14:
		_ = s.Frames.WritePing(s.Roll(2) == 1, [8]byte{})
	case 15, 16:
		_ = s.Frames.WriteWindowUpdate(uint32(s.Roll(2))*s.stream(), uint32([]int{1, 100, 10_000, 1 << 16, 1 << 16, 1<<31 - 1}[s.Roll(6)]))
	case 17:
		_ = s.Frames.WritePriority(s.stream(), http2.PriorityParam{StreamDep: uint32(s.Roll(8)), Weight: 1})
	case 18:
		s.odd(s.stream())
	default:
		_ = s.Frames.WriteRawFrame(http2.FrameType(0x20), http2.Flags(s.Roll(256)), s.stream(), []byte("unknown"))
	}
}

// odd is what clients do not send.
func (s *schedule) odd(id uint32) {
	switch s.Roll(8) {
	case 0:
		_ = s.Frames.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: s.Fields(":method", "GET"), EndHeaders: true})
	case 1:
		_ = s.Frames.WriteContinuation(id, true, s.Fields("a", "b"))
	case 2:
		_ = s.Frames.WriteData(uint32(s.Roll(100)), s.Roll(2) == 1, []byte("x"))
	case 3:
		_ = s.Frames.WriteRawFrame(http2.FrameType(s.Roll(10)), http2.Flags(s.Roll(64)), id, make([]byte, s.Roll(12)))
	case 4:
		_ = s.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: s.opened(), BlockFragment: []byte{0x40, 0x01}, EndHeaders: true})
	case 5:
		_ = s.Frames.WriteSettingsAck()
	case 6:
		s.request(id)
	default:
		_ = s.Frames.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, id, []byte{byte(s.Roll(8)), 1, 2, 3})
	}
}

// request opens a stream, mostly in the way of a client.
func (s *schedule) request(id uint32) {
	list := []string{
		":method", s.One("POST", "POST", "POST", "GET", "GET", "HEAD", "OPTIONS", "PUT"),
		":scheme", s.One("https", "https", "https", "https", "https", "https", "https", "http"),
		":path", s.One("/read", "/read", "/read", "/say", "/wait", "/part", "/part", "/big", "/big", "/abort", "/late", "/trailer", "/close", "/head", "/none?a=%20b"),
		":authority", s.One("plugin", "plugin", "plugin", "plugin", "plugin", ""),
	}
	if s.Roll(20) == 1 {
		list[2*s.Roll(4)+1] = s.One("", "CONNECT", "ftp", "*", "no path", "a b", "\x01")
	}
	if s.Roll(20) == 1 {
		at := 2 * s.Roll(4)
		list = slices.Delete(list, at, at+2)
	}
	for range s.Roll(4) {
		list = append(list, s.field()...)
	}
	if s.Roll(3) == 1 {
		list = append(list, "content-length", s.One("0", "5", "10", "15", "x", "-1"))
	}
	s.headers(id, s.Roll(2) == 1, list)
}

func (s *schedule) field() []string {
	return []string{
		s.One("x-a", "x-b", "content-type", "cookie", "cookie", "expect", "te", "trailer", "host", "accept-encoding",
			"connection", "Upper", "sp ace", ":path", "transfer-encoding", ""),
		s.One("", "x", "hello", "trailers", "x-sum", "100-continue", "a, b", "0", "\x01", strings.Repeat("z", 200), strings.Repeat("~", 5<<10)),
	}
}

func (s *schedule) headers(id uint32, end bool, list []string) {
	s.Headers(id, func() bool { return end }, list)
}

func (s *schedule) data(id uint32) { s.Data(id, 0, 0, 5, 5, 10, 300, 1000, 16<<10) }
