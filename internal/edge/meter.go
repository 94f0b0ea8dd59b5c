package edge

import (
	"encoding/binary"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tlsrecords"
)

// Frame types, flags and the length of a frame's header (RFC 9113, section 4.1 and 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindow       = 0x8
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8

	headerLen  = 9
	littleData = 64      // bytes in a frame of DATA, below which it takes longer than they say
	plainHead  = 1 << 10 // bytes of a header block that every request may have
	prefaceLen = 24
)

// kind is what a frame of a peer is counted as.
type kind int

const (
	resets kind = iota
	settings
	pings
	priorities
	windows
	empties
	headerBytes
	others
	refusals
	strays
	idles
	shorts
	kinds
)

// String is what the log and the peer are told.
func (k kind) String() string {
	return [...]string{
		"reset streams", "SETTINGS", somePings, "PRIORITY frames", "WINDOW_UPDATEs", "empty DATA frames", "bytes of header blocks",
		"frames of other types", someRefusals, "bytes for streams that have ended",
		tlsrecords.TooManyIdle, tlsrecords.TooManyOfLittle,
	}[k]
}

// cutFor is what comes before a kind where somebody is cut off for it.
const cutFor = "too many "

// Reasons of cut-offs for which there is a bound in the configuration: [Config].Pings, Refusals and HandshakeTimeout,
// and, of a header block far longer than is taken, that of the server.
const (
	CutOffPings    = cutFor + somePings
	CutOffRefusals = cutFor + someRefusals
	CutOffSlow     = "the head of a request took too long"
	CutOffBlock    = cutFor + "bytes of one header block"
	// CutOffUnfinished has none: who holds nothing is in the midst of a long head while others are and wait.
	CutOffUnfinished = cutFor + "heads of requests at a time that are not whole"
	somePings        = "PINGs"
	someRefusals     = "requests that were refused"
)

// allowance is how many of a kind a peer may send: so many at once, so many a second,
// and more for what the connection is used for.
type allowance struct {
	burst     float64
	perSecond float64

	perCall float64 // for each request that was served, and neither refused nor given up
	perSent float64 // for each DATA frame that the server sent
	perGot  float64 // for each DATA frame with bytes that the peer sent
	perByte float64 // for each byte of DATA that the server sent
	perHead float64 // for each frame that the peer sent
	perRead float64 // for each byte of all that it sent

	most float64 // how many of what was earned are kept, the burst where it is zero
}

// keep is how many may be left at most.
func (a *allowance) keep() float64 { return max(a.most, a.burst) }

// limit sets what is free. A zero rate leaves it as it is.
func (a *allowance) limit(r Rate) {
	if r != (Rate{}) {
		a.perSecond, a.burst = r.PerSecond, float64(r.Burst)
	}
}

// allowances are far above what honest peers send: ten thousand short calls a second, a
// thousand cancelled calls at once, a keep-alive every few seconds, the PINGs with which
// gRPC measures the connection while data flows, and a WINDOW_UPDATE or two for each short message of
// that: a frame of a few bytes, which is so short because its window was, explains none.
//
//nolint:mnd // a table of numbers
var allowances = [kinds]allowance{
	resets:      {burst: 2000, perSecond: 100, perCall: 1, perSent: 0.1},
	settings:    {burst: 50, perSecond: 1},
	pings:       {burst: 200, perSecond: 5, perCall: 1, perSent: 1, perGot: 1},
	priorities:  {burst: 500, perSecond: 10, perCall: 2},
	windows:     {burst: 5000, perSecond: 100, perCall: 4, perByte: 1.0 / 16, most: 20_000},
	empties:     {burst: 200, perSecond: 10, perCall: 2},
	headerBytes: {burst: 4 << 20, perSecond: 512 << 10, perCall: 64 << 10},
	others:      {burst: 50, perSecond: 1, perCall: 1},
	refusals:    {burst: 2000, perSecond: 100, perCall: 1},
	strays:      {burst: 1 << 20, perSecond: 1 << 20},
	idles:       {burst: tlsrecords.IdleBurst, perSecond: tlsrecords.IdlePerSecond},
	shorts: {
		burst: tlsrecords.ShortBurst, perSecond: tlsrecords.ShortPerSecond,
		perHead: tlsrecords.ShortPerFrame, perRead: tlsrecords.ShortPerByte, most: tlsrecords.ShortMost,
	},
}

// weights are how many frames that nothing explains one of a kind counts as, where they wait for those of other connections: a record
// of TLS takes longer than a frame, an update of the key longer than that, and some bytes for a stream that has ended as long. Heads
// are counted apart, and so are requests that are refused or given up.
//
//nolint:mnd // a table of numbers
var weights = [kinds]float64{
	settings: 1, pings: 1, priorities: 1, windows: 1, empties: 1, others: 1, strays: 1.0 / 512, idles: 8, shorts: 4,
}

const (
	// unexplainedRead is how many more are counted where any came: most of the time is that of reading them, one or a thousand.
	unexplainedRead = 4
	// usualUnexplained is how many of them a connection may send before it waits for others, and unexplainedPerSecond as many
	// again: what an honest one begins with, and its keep-alives.
	usualUnexplained, unexplainedPerSecond = 20, 1
)

// rules are what there may be on a connection.
type rules struct {
	of [kinds]allowance
	// nobody is what of header blocks is free where no account pays, and what a request earns that was served
	// to nobody in particular: that has no other budget, and may be long.
	nobody allowance
}

// usual are those where nothing is configured.
var usual = rules{allowances, allowance{burst: 512 << 10, perSecond: 64 << 10, perCall: 4 << 10}} //nolint:mnd // as allowances

// heads makes room for heads of a size: for one that is read to its end though it is far larger, and another, and
// for the trailer of each call.
func (r *rules) heads(size float64) {
	const free, perCall = 16, 2
	known := &r.of[headerBytes]
	r.nobody.burst = max(r.nobody.burst, free*size)
	known.burst, known.perCall = max(known.burst, r.nobody.burst), max(known.perCall, perCall*size)
}

// meter counts the frames of a connection. Its owner guards it.
type meter struct {
	rules   *rules
	billed  bool // an account pays
	left    [kinds]float64
	earned  [kinds]float64 // of left, what calls and data explain
	extra   float64        // frames that nothing explains, beyond those that are usual, which were not paid for yet
	filled  time.Time
	in      frames
	out     frames
	last    uint32 // the highest stream that the peer opened
	asked   int    // PINGs of the server that the peer has not answered yet
	heads   int    // header blocks that began
	begins  int    // where in what came last the last one begins; below zero where that was before
	open    bool   // the last one goes on in another frame
	several bool   // it comes in several
	block   bool   // the frame that came last is of one
	opens   []int  // where in what came last a stream begins: the ends of the heads of the frames that open them
	little  int    // frames of DATA in what came last with less than littleData bytes
	plain   int    // bytes that the header block which came last may still have before it is a long one
	long    int    // bytes of header blocks beyond those, which were not paid for yet
	gaveUp  int    // streams in it that the peer reset
}

func newMeter(now time.Time, rules *rules) *meter {
	m := &meter{filled: now, rules: rules, extra: -usualUnexplained}
	m.in.skip = prefaceLen
	for k := range kinds {
		m.left[k] = m.rule(k).burst
	}
	return m
}

// What header blocks may cost that come on many connections of one address: so many at once, and so many a second, begin
// with all of what is free on one. The others have room for a few heads, and more in time as all have.
const (
	ampleBurst     = 32
	amplePerSecond = 4
	scarce         = 8 // of what is free, one part in so many
)

// newMeter makes the meter of a connection.
func (l *Listener) newMeter(s *slot) *meter {
	now := time.Now()
	m := newMeter(now, &l.rules)
	if !l.ample.Allow(l.cfg.Key(s.conn.RemoteAddr()), amplePerSecond, ampleBurst, now) {
		m.left[headerBytes] /= scarce
	}
	return m
}

// rule is what there may be of a kind.
func (m *meter) rule(k kind) *allowance {
	if k == headerBytes && !m.billed {
		return &m.rules.nobody
	}
	return &m.rules.of[k]
}

// bill notes that an account pays.
func (m *meter) bill() {
	if m.billed {
		return
	}
	m.billed = true
	m.left[headerBytes] += m.rule(headerBytes).burst - m.rules.nobody.burst
}

// served takes account of a request that was served, to who is known or to nobody in particular.
func (m *meter) served(known bool) {
	before := m.left[headerBytes]
	m.earn(func(a *allowance) float64 { return a.perCall })
	if !known {
		m.left[headerBytes] = min(m.left[headerBytes], before+m.rules.nobody.perCall)
	}
}

// received counts what the peer sent and returns the kind of which it was too much.
func (m *meter) received(p []byte, now time.Time) (kind, bool) {
	m.fill(now)
	m.opens, m.little, m.gaveUp = m.opens[:0], 0, 0
	all, extra := len(p), m.extra
	defer func() {
		if m.extra > extra {
			m.extra += unexplainedRead
		}
	}()
	m.explain(float64(all) * m.rule(shorts).perRead)
	for len(p) > 0 {
		var f frame
		var whole bool
		if p, f, whole = m.in.next(p, true); !whole {
			break
		}
		m.explain(m.rule(shorts).perHead)
		before, heads := m.last, m.heads
		k, n := m.count(f)
		if m.heads > heads {
			m.begins = all - len(p) - headerLen
		}
		if m.last > before { // else they are trailers
			m.opens = append(m.opens, all-len(p))
		}
		if n == 0 {
			continue
		}
		if m.take(k, n); m.left[k] < 0 {
			return k, true
		}
	}
	return 0, false
}

// take takes so many of a kind from what is left, first of what is explained.
func (m *meter) take(k kind, n float64) {
	m.left[k] -= n
	explained := min(n, m.earned[k])
	m.earned[k] -= explained
	m.extra += (n - explained) * weights[k]
}

// unpaid returns how many frames came that nothing explains since it was asked last.
func (m *meter) unpaid() float64 {
	n := max(m.extra, 0)
	m.extra -= n
	return n
}

// explain lets the peer send so many more records of TLS.
func (m *meter) explain(n float64) { m.earnOf(shorts, n) }

// earnOf has so many more of a kind be explained.
func (m *meter) earnOf(k kind, n float64) {
	keep := m.rule(k).keep()
	m.left[k], m.earned[k] = min(m.left[k]+n, keep), min(m.earned[k]+n, keep)
}

// recorded takes account of records of TLS, of which so many carried nothing, and returns the kind of which it was too
// much.
func (m *meter) recorded(n, idle int, now time.Time) (kind, bool) {
	m.fill(now)
	m.take(shorts, float64(n))
	m.take(idles, float64(max(idle, 0)))
	if m.left[idles] < 0 {
		return idles, true
	}
	return shorts, m.left[shorts] < 0
}

// count returns as what a frame of the peer counts, and how much.
func (m *meter) count(f frame) (kind, float64) {
	m.block = f.kind == frameHeaders || f.kind == frameContinuation
	if m.block {
		m.open = f.flags&flagEndHeaders == 0
		m.several = m.open || f.kind == frameContinuation
	}
	switch f.kind {
	case frameData:
		return m.data(f)
	case frameHeaders:
		m.heads++
		m.last = max(m.last, f.stream)
		m.plain = plainHead
		return m.head(f)
	case frameContinuation:
		return m.head(f)
	case framePriority:
		return priorities, 1
	case frameReset:
		m.gaveUp++
		return resets, 1
	case frameSettings:
		return settings, 1 + float64(f.length)/36
	case framePing:
		if f.flags&flagAck != 0 && m.asked > 0 {
			m.asked--
			return pings, 0
		}
		return pings, 1
	case frameWindow:
		return windows, 1
	}
	return others, 1
}

// head is count for a frame of a header block.
func (m *meter) head(f frame) (kind, float64) {
	m.long += max(f.length-m.plain, 0)
	m.plain = max(m.plain-f.length, 0)
	return headerBytes, float64(f.length) + headerLen
}

// data is count for a frame of data.
func (m *meter) data(f frame) (kind, float64) {
	ends := f.flags&flagEndStream != 0
	switch n := f.length - f.padding; {
	case n <= 0 && !ends:
		return empties, 1
	case n <= 0:
		return 0, 0
	case n < littleData && !ends:
		m.little++
	}
	m.earn(func(a *allowance) float64 { return a.perGot })
	return 0, 0
}

// decoded takes account of fields that are so much larger than the blocks in which they came.
func (m *meter) decoded(n int, now time.Time) {
	m.fill(now)
	m.left[headerBytes] -= float64(n)
}

// sent takes account of what the server answered.
func (m *meter) sent(p []byte) {
	for len(p) > 0 {
		var f frame
		var whole bool
		if p, f, whole = m.out.next(p, false); !whole {
			return
		}
		if f.kind == frameData {
			m.earn(func(a *allowance) float64 { return a.perSent + a.perByte*float64(f.length) })
		}
		if f.kind == framePing && f.flags&flagAck == 0 {
			m.asked++
		}
		if f.kind == frameReset { // a stream that found no room, or was not worth its end
			m.left[refusals]--
		}
	}
}

// inSeveral reports that a header block has begun to come in several frames and is not whole.
func (m *meter) inSeveral() bool { return m.inHead() && m.several }

// inHead reports that a header block has begun to come and is not whole.
func (m *meter) inHead() bool { return m.open || m.block && m.in.skip > 0 }

// between reports that what was sent ends with a whole frame.
func (m *meter) between() bool { return m.out.skip == 0 && m.out.have == 0 }

func (m *meter) earn(of func(*allowance) float64) {
	for k := range kinds {
		if n := of(m.rule(k)); n > 0 {
			m.earnOf(k, n)
		}
	}
}

func (m *meter) fill(now time.Time) {
	passed := now.Sub(m.filled).Seconds()
	if passed <= 0 {
		return
	}
	m.filled = now
	m.extra = min(m.extra, max(m.extra-unexplainedPerSecond*passed, -usualUnexplained))
	for k := range kinds {
		a := m.rule(k)
		m.left[k] = max(m.left[k], min(m.left[k]+a.perSecond*passed, a.burst))
	}
}

// frame is the header of a frame, and its padding.
type frame struct {
	kind, flags byte
	length      int
	padding     int // with the byte that says how long it is
	stream      uint32
}

// frames finds the frames in a stream of bytes that is cut anywhere.
type frames struct {
	skip int // bytes of a payload, or of the preface, that are still to come
	have int // bytes of head
	head [headerLen + 1]byte
}

// next returns the next frame and what follows its header; whole is false where there
// is none before p ends. Where padded asks for it the length of the padding is read.
func (s *frames) next(p []byte, padded bool) (rest []byte, f frame, whole bool) {
	if s.skip > 0 {
		n := min(s.skip, len(p))
		s.skip -= n
		if p = p[n:]; len(p) == 0 {
			return nil, frame{}, false
		}
	}
	for {
		want := headerLen
		if s.have >= headerLen && padded && s.head[3] == frameData && s.head[4]&flagPadded != 0 && s.length() > 0 {
			want++
		}
		if s.have == want {
			break
		}
		if len(p) == 0 {
			return nil, frame{}, false
		}
		n := copy(s.head[s.have:want], p)
		s.have += n
		p = p[n:]
	}
	f = frame{
		kind: s.head[3], flags: s.head[4], length: s.length(), stream: binary.BigEndian.Uint32(s.head[5:]) & (1<<31 - 1),
	}
	s.skip = f.length
	if s.have > headerLen {
		f.padding = 1 + int(s.head[headerLen])
		s.skip--
	}
	s.have = 0
	return p, f, true
}

func (s *frames) length() int {
	return int(s.head[0])<<16 | int(s.head[1])<<8 | int(s.head[2])
}
