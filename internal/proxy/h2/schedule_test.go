package h2_test

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

// schedule is what a server does with a few requests: frames, and how they are cut
// into writes.
type schedule struct {
	dice

	requests []int // the kinds of the requests
	settings []http2.Setting
	writes   [][]byte
	written  int // bytes of them
	acts     []act
	fr       *http2.Framer
	raw      bytes.Buffer
	block    bytes.Buffer
	enc      *hpack.Encoder
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
	s := &schedule{dice: dice{seed}, heads: map[uint32]bool{}}
	s.fr = http2.NewFramer(&s.raw, nil)
	s.fr.AllowIllegalWrites = true
	s.enc = hpack.NewEncoder(&s.block)
	for range 1 + s.roll(4) {
		s.requests = append(s.requests, s.roll(kinds))
	}
	if s.roll(3) > 0 {
		s.settings = append(s.settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100})
	}
	frames := 0
	for ; !s.done() && frames < mostFrames; frames++ {
		s.frame()
		if s.roll(3) == 0 {
			s.cut()
		}
	}
	s.mutate()
	s.cut()
	return s
}

// cut ends a write, now and then within a frame.
func (s *schedule) cut() {
	raw := bytes.Clone(s.raw.Bytes())
	s.raw.Reset()
	if n := s.roll(40); n > 0 && n < len(raw) {
		s.writes = append(s.writes, raw[:n])
		raw = raw[n:]
	}
	if len(raw) > 0 {
		s.writes = append(s.writes, raw)
	}
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

// mutate changes a byte of what is not written yet, rarely.
func (s *schedule) mutate() {
	if raw := s.raw.Bytes(); len(raw) > 0 && s.roll(4) == 1 {
		raw[s.roll(len(raw))] ^= byte(1 << s.roll(8))
	}
}

// stream is a stream of a request, mostly.
func (s *schedule) stream() uint32 {
	if n := s.roll(40); n > 37 {
		return uint32(n - 38) // 0 or 1
	}
	return uint32(2*s.roll(len(s.requests)) + 1)
}

func (s *schedule) frame() {
	id := s.stream()
	switch s.roll(24) {
	case 0, 1, 2, 3, 4:
		s.response(id)
	case 5, 6, 7, 8:
		s.data(id)
	case 9, 10:
		s.trailer(id)
	case 11:
		_ = s.fr.WriteRSTStream(id, http2.ErrCode(s.roll(15)))
	case 12:
		_ = s.fr.WriteGoAway(uint32(s.roll(9)), http2.ErrCode(s.roll(14)), []byte(s.one("", "text")))
	case 13:
		s.setting()
	case 14:
		_ = s.fr.WritePing(s.roll(2) == 1, [8]byte{})
	case 15:
		_ = s.fr.WriteWindowUpdate(s.one2(0, id), s.increment())
	case 16:
		_ = s.fr.WriteRawFrame(http2.FrameType(0x20), http2.Flags(s.roll(256)), id, []byte("unknown"))
	case 17:
		_ = s.fr.WritePriority(id, http2.PriorityParam{StreamDep: uint32(s.roll(8)), Weight: 1})
	case 18:
		s.odd(id)
	case 19, 20:
		s.stall()
	case 21:
		s.act(s.roll(3), s.roll(len(s.requests)))
	default:
		_ = s.fr.WriteSettingsAck()
	}
}

// increment is one of a window. How much of an upload was sent is the client's own affair; so
// where there is one, none is as large as to depend on that.
func (s *schedule) increment() uint32 {
	all := []uint32{1, 100, 1 << 16, 1<<31 - 1}
	if slices.Contains(s.requests, kindUpload) {
		all[3] = 1 << 20
	}
	return all[s.roll(len(all))]
}

// stall lets a request go on to a server that takes nothing in, and something happen to it
// meanwhile.
func (s *schedule) stall() {
	call := max(0, slices.Index(s.requests, kindUpload))
	if s.roll(4) == 1 {
		call = s.roll(len(s.requests))
	}
	id := uint32(2*call + 1)
	s.act(actDeaf, call)
	if s.roll(3) > 0 {
		_ = s.fr.WriteWindowUpdate(0, s.increment())
	}
	if s.roll(3) > 0 {
		_ = s.fr.WriteWindowUpdate(id, s.increment())
	} else {
		s.setting()
	}
	s.cut()
	switch s.roll(7) {
	case 0, 1:
		_ = s.fr.WriteRSTStream(id, http2.ErrCode(s.roll(15)))
	case 2:
		s.trailer(id)
	case 3:
		_ = s.fr.WriteData(id, true, nil)
	case 4:
		_ = s.fr.WriteGoAway(uint32(s.roll(9)), http2.ErrCodeNo, nil)
	case 5:
		s.act(actCancel, call)
	default:
	}
	if s.roll(4) > 0 {
		s.act(actHear, call)
	}
}

func (s *schedule) one2(a, b uint32) uint32 {
	if s.roll(2) == 0 {
		return a
	}
	return b
}

func (s *schedule) setting() {
	_ = s.fr.WriteSettings(
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(s.roll(256) * 512)},
		http2.Setting{ID: http2.SettingID(s.roll(8)), Val: uint32(s.roll(256) << s.roll(16))})
}

// odd is what servers do not send.
func (s *schedule) odd(id uint32) {
	switch s.roll(6) {
	case 0:
		_ = s.fr.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: s.fields(":method", "GET"), EndHeaders: true})
	case 1:
		_ = s.fr.WriteContinuation(id, true, s.fields("a", "b"))
	case 2:
		_ = s.fr.WriteData(uint32(s.roll(100)), s.roll(2) == 1, []byte("x"))
	case 3:
		_ = s.fr.WriteRawFrame(http2.FrameType(s.roll(10)), http2.Flags(s.roll(64)), id, make([]byte, s.roll(12)))
	case 4:
		_ = s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x40, 0x01}, EndHeaders: true})
	default:
		_ = s.fr.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, id, []byte{byte(s.roll(8)), 1, 2, 3})
	}
}

func (s *schedule) response(id uint32) {
	if s.heads[id] && s.roll(8) > 0 {
		s.data(id)
		return
	}
	status := s.one("200", "200", "200", "200", "404", "204", "304", "100", "103", "103", "101", "999", "abc", "20", "")
	s.heads[id] = s.heads[id] || status >= "2"
	list := []string{":status", status}
	for range s.roll(4) {
		list = append(list, s.field()...)
	}
	if n := s.roll(6); n < 2 {
		list = append(list, "content-length", s.one("0", "5", "10", "300", "x", "-1"))
	}
	s.headers(id, list)
}

func (s *schedule) field() []string {
	return []string{
		s.one("a", "b", "content-type", "set-cookie", "date", "grpc-status", "x-y", "Upper", "sp ace", ":path", ""),
		s.one("", "x", "hello", "a, b", "0", "\x01", strings.Repeat("z", 200), strings.Repeat("~", 5<<10)),
	}
}

func (s *schedule) trailer(id uint32) {
	list := []string{"grpc-status", s.one("0", "5")}
	for range s.roll(3) {
		list = append(list, s.field()...)
	}
	if s.roll(20) == 1 {
		list = append([]string{":status", "200"}, list...)
	}
	s.headers(id, list)
}

// headers writes a block in one frame or several.
func (s *schedule) headers(id uint32, list []string) {
	block := bytes.Clone(s.fields(list...))
	cut := len(block)
	if s.roll(4) == 1 {
		cut = s.roll(len(block) + 1)
	}
	param := http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:cut], EndHeaders: cut == len(block), EndStream: s.roll(3) == 1}
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
	data := bytes.Repeat([]byte{'d'}, []int{0, 0, 5, 5, 10, 300, 1000}[s.roll(7)])
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
