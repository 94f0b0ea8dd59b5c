package h2serve_test

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// dice reads decisions from bytes; when they are used up every decision is 0.
type dice struct{ left []byte }

func (d *dice) roll(n int) int {
	if len(d.left) == 0 {
		return 0
	}
	b := d.left[0]
	d.left = d.left[1:]
	return int(b) % n
}

func (d *dice) one(of ...string) string { return of[d.roll(len(of))] }

func (d *dice) done() bool { return len(d.left) == 0 }

// schedule is what a client sends: frames, and how they are cut into writes.
type schedule struct {
	dice

	writes [][]byte
	fr     *http2.Framer
	raw    bytes.Buffer
	block  bytes.Buffer
	enc    *hpack.Encoder
	next   uint32 // stream to be opened
}

const mostFrames = 60

func newSchedule(seed []byte) *schedule {
	s := &schedule{dice: dice{seed}, next: 1}
	s.fr = http2.NewFramer(&s.raw, nil)
	s.fr.AllowIllegalWrites = true
	s.enc = hpack.NewEncoder(&s.block)
	if s.roll(30) != 29 {
		_ = s.fr.WriteSettings()
		_ = s.fr.WriteSettingsAck()
	}
	s.request(s.opened())
	for frames := 0; !s.done() && frames < mostFrames; frames++ {
		s.frame()
		if s.roll(3) == 0 {
			s.cut()
		}
	}
	if raw := s.raw.Bytes(); len(raw) > 0 && s.roll(4) == 1 {
		raw[s.roll(len(raw))] ^= byte(1 << s.roll(8))
	}
	s.cut()
	return s
}

// cut ends a write, now and then within a frame.
func (s *schedule) cut() {
	raw := bytes.Clone(s.raw.Bytes())
	s.raw.Reset()
	if n := s.roll(60); n > 0 && n < len(raw) {
		s.writes = append(s.writes, raw[:n])
		raw = raw[n:]
	}
	if len(raw) > 0 {
		s.writes = append(s.writes, raw)
	}
}

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
	if s.roll(30) == 29 {
		s.next += 4
	}
	return id
}

// stream is one that was opened, mostly.
func (s *schedule) stream() uint32 {
	if n := s.roll(50); n > 47 {
		return []uint32{0, s.next + 1}[n-48]
	}
	return uint32(2*s.roll(int(s.next)/2) + 1)
}

func (s *schedule) frame() {
	switch s.roll(20) {
	case 0, 1, 2, 3, 4:
		s.request(s.opened())
	case 5, 6, 7, 8, 9:
		s.data(s.stream())
	case 10:
		s.headers(s.stream(), s.roll(8) != 1, []string{s.one("x-sum", "x-other", ":path", "content-length", "trailer"), "7"})
	case 11:
		_ = s.fr.WriteRSTStream(s.stream(), http2.ErrCode(s.roll(15)))
	case 12:
		if s.roll(8) == 1 {
			_ = s.fr.WriteGoAway(uint32(s.roll(9)), http2.ErrCode(s.roll(14)), []byte(s.one("", "text")))
		}
	case 13:
		s.setting()
	case 14:
		_ = s.fr.WritePing(s.roll(2) == 1, [8]byte{})
	case 15, 16:
		_ = s.fr.WriteWindowUpdate(uint32(s.roll(2))*s.stream(), uint32([]int{1, 100, 10_000, 1 << 16, 1 << 16, 1<<31 - 1}[s.roll(6)]))
	case 17:
		_ = s.fr.WritePriority(s.stream(), http2.PriorityParam{StreamDep: uint32(s.roll(8)), Weight: 1})
	case 18:
		s.odd(s.stream())
	default:
		_ = s.fr.WriteRawFrame(http2.FrameType(0x20), http2.Flags(s.roll(256)), s.stream(), []byte("unknown"))
	}
}

func (s *schedule) setting() {
	_ = s.fr.WriteSettings(
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(s.roll(256) * 512)},
		http2.Setting{ID: http2.SettingID(s.roll(8)), Val: uint32(s.roll(256) << s.roll(16))})
}

// odd is what clients do not send.
func (s *schedule) odd(id uint32) {
	switch s.roll(8) {
	case 0:
		_ = s.fr.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: s.fields(":method", "GET"), EndHeaders: true})
	case 1:
		_ = s.fr.WriteContinuation(id, true, s.fields("a", "b"))
	case 2:
		_ = s.fr.WriteData(uint32(s.roll(100)), s.roll(2) == 1, []byte("x"))
	case 3:
		_ = s.fr.WriteRawFrame(http2.FrameType(s.roll(10)), http2.Flags(s.roll(64)), id, make([]byte, s.roll(12)))
	case 4:
		_ = s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.opened(), BlockFragment: []byte{0x40, 0x01}, EndHeaders: true})
	case 5:
		_ = s.fr.WriteSettingsAck()
	case 6:
		s.request(id)
	default:
		_ = s.fr.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, id, []byte{byte(s.roll(8)), 1, 2, 3})
	}
}

// request opens a stream, mostly in the way of a client.
func (s *schedule) request(id uint32) {
	list := []string{
		":method", s.one("POST", "POST", "POST", "GET", "GET", "HEAD", "OPTIONS", "PUT"),
		":scheme", s.one("https", "https", "https", "https", "https", "https", "https", "http"),
		":path", s.one("/read", "/read", "/read", "/say", "/wait", "/part", "/part", "/big", "/big", "/abort", "/late", "/trailer", "/close", "/head", "/none?a=%20b"),
		":authority", s.one("plugin", "plugin", "plugin", "plugin", "plugin", ""),
	}
	if s.roll(20) == 1 {
		list[2*s.roll(4)+1] = s.one("", "CONNECT", "ftp", "*", "no path", "a b", "\x01")
	}
	if s.roll(20) == 1 {
		at := 2 * s.roll(4)
		list = slices.Delete(list, at, at+2)
	}
	for range s.roll(4) {
		list = append(list, s.field()...)
	}
	if s.roll(3) == 1 {
		list = append(list, "content-length", s.one("0", "5", "10", "15", "x", "-1"))
	}
	s.headers(id, s.roll(2) == 1, list)
}

func (s *schedule) field() []string {
	return []string{
		s.one("x-a", "x-b", "content-type", "cookie", "cookie", "expect", "te", "trailer", "host", "accept-encoding",
			"connection", "Upper", "sp ace", ":path", "transfer-encoding", ""),
		s.one("", "x", "hello", "trailers", "x-sum", "100-continue", "a, b", "0", "\x01", strings.Repeat("z", 200), strings.Repeat("~", 5<<10)),
	}
}

// headers writes a block in one frame or several.
func (s *schedule) headers(id uint32, end bool, list []string) {
	block := bytes.Clone(s.fields(list...))
	cut := len(block)
	if s.roll(4) == 1 {
		cut = s.roll(len(block) + 1)
	}
	param := http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:cut], EndHeaders: cut == len(block), EndStream: end}
	if s.roll(6) == 1 {
		param.PadLength = uint8(s.roll(20))
	}
	if s.roll(6) == 1 {
		param.Priority = http2.PriorityParam{StreamDep: uint32(s.roll(4)), Weight: 3}
	}
	_ = s.fr.WriteHeaders(param)
	if cut < len(block) {
		middle := cut + s.roll(len(block)-cut+1)
		if middle > cut {
			_ = s.fr.WriteContinuation(id, false, block[cut:middle])
		}
		_ = s.fr.WriteContinuation(id, true, block[middle:])
	}
}

func (s *schedule) data(id uint32) {
	data := bytes.Repeat([]byte{'d'}, []int{0, 0, 5, 5, 10, 300, 1000, 16 << 10}[s.roll(8)])
	end := s.roll(3) == 1
	if s.roll(5) == 1 {
		_ = s.fr.WriteDataPadded(id, end, data, make([]byte, s.roll(20)))
		return
	}
	_ = s.fr.WriteData(id, end, data)
}

func (s *schedule) fields(list ...string) []byte {
	s.block.Reset()
	for i := 0; i < len(list); i += 2 {
		_ = s.enc.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]})
	}
	return s.block.Bytes()
}
