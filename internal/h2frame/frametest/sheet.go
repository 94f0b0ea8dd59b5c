// Package frametest writes frames of HTTP/2 as bytes decide, for the fuzz targets that hold our ends
// of a connection against those of x/net.
package frametest

import (
	"bytes"
	"math/rand/v2"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Dice reads decisions from bytes; when they are used up every decision is 0.
type Dice struct{ left []byte }

// NewDice reads decisions from seed.
func NewDice(seed []byte) Dice { return Dice{seed} }

// Roll returns a number below n.
func (d *Dice) Roll(n int) int {
	if len(d.left) == 0 {
		return 0
	}
	b := d.left[0]
	d.left = d.left[1:]
	return int(b) % n
}

// One returns one of the texts.
func (d *Dice) One(of ...string) string { return of[d.Roll(len(of))] }

// Done reports whether nothing is left to decide.
func (d *Dice) Done() bool { return len(d.left) == 0 }

// Sheet is frames that are decided by dice. Make it with [NewSheet].
type Sheet struct {
	Dice

	Frames *http2.Framer // writes to Raw, also what is not allowed
	Raw    bytes.Buffer  // what is not cut into a write yet

	block bytes.Buffer
	enc   *hpack.Encoder
}

// NewSheet makes an empty sheet.
func NewSheet(seed []byte) *Sheet {
	s := &Sheet{Dice: NewDice(seed)}
	s.Frames = http2.NewFramer(&s.Raw, nil)
	s.Frames.AllowIllegalWrites = true
	s.enc = hpack.NewEncoder(&s.block)
	return s
}

// Cut takes what was written so far, as one write or, mostly, as two of which the first is shorter than
// within bytes.
func (s *Sheet) Cut(within int) (writes [][]byte) {
	raw := bytes.Clone(s.Raw.Bytes())
	s.Raw.Reset()
	if n := s.Roll(within); n > 0 && n < len(raw) {
		writes = append(writes, raw[:n])
		raw = raw[n:]
	}
	if len(raw) > 0 {
		writes = append(writes, raw)
	}
	return writes
}

// Mutate changes a bit of what is not cut yet, rarely.
func (s *Sheet) Mutate() {
	if raw := s.Raw.Bytes(); len(raw) > 0 && s.Roll(4) == 1 {
		raw[s.Roll(len(raw))] ^= byte(1 << s.Roll(8))
	}
}

// Headers writes a block in one frame or several; end decides whether it is the stream's last.
func (s *Sheet) Headers(id uint32, end func() bool, list []string) {
	block := bytes.Clone(s.Fields(list...))
	cut := len(block)
	if s.Roll(4) == 1 {
		cut = s.Roll(len(block) + 1)
	}
	param := http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:cut], EndHeaders: cut == len(block), EndStream: end()}
	if s.Roll(6) == 1 {
		param.PadLength = uint8(s.Roll(20))
	}
	if s.Roll(6) == 1 {
		param.Priority = http2.PriorityParam{StreamDep: uint32(s.Roll(4)), Weight: 3}
	}
	_ = s.Frames.WriteHeaders(param)
	if cut < len(block) {
		middle := cut + s.Roll(len(block)-cut+1)
		if middle > cut {
			_ = s.Frames.WriteContinuation(id, false, block[cut:middle])
		}
		_ = s.Frames.WriteContinuation(id, true, block[middle:])
	}
}

// Data writes one of so many bytes, now and then with padding.
func (s *Sheet) Data(id uint32, lengths ...int) {
	data := bytes.Repeat([]byte{'d'}, lengths[s.Roll(len(lengths))])
	end := s.Roll(3) == 1
	if s.Roll(5) == 1 {
		_ = s.Frames.WriteDataPadded(id, end, data, make([]byte, s.Roll(20)))
		return
	}
	_ = s.Frames.WriteData(id, end, data)
}

// Settings writes a window and anything else.
func (s *Sheet) Settings() {
	_ = s.Frames.WriteSettings(
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(s.Roll(256) * 512)},
		http2.Setting{ID: http2.SettingID(s.Roll(8)), Val: uint32(s.Roll(256) << s.Roll(16))})
}

// Fields encodes names and values, in turns.
func (s *Sheet) Fields(list ...string) []byte {
	s.block.Reset()
	for i := 0; i < len(list); i += 2 {
		_ = s.enc.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]})
	}
	return s.block.Bytes()
}

// Seeds are n schedules of 10 bytes and more, most below 10 + longest.
func Seeds(n, longest int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([][]byte, 0, n)
	for i := range n {
		seed := make([]byte, 10+i%longest)
		for j := range seed {
			seed[j] = byte(r.Uint32())
		}
		all = append(all, seed)
	}
	return all
}
