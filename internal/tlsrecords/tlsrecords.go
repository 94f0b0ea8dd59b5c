// Package tlsrecords counts the records of TLS that a peer sends, below TLS and without reading them: no frame says
// anything of a record that carries nothing, or a byte.
package tlsrecords

import (
	"encoding/binary"
	"time"
)

// headLen is the length of the head of a record of TLS (RFC 8446, section 5.1).
const headLen = 5

// What a peer may send. Of records of TLS a frame explains two, its head and the rest, and more where it is long. Those
// that carry nothing update the key, which libraries do after gigabytes. A read in which none became whole counts as one that
// is short: one of 16 KiB can come in as many pieces.
const (
	IdleBurst       = 200 // that carry nothing, at once
	IdlePerSecond   = 10
	ShortBurst      = 5000 // of any, at once
	ShortPerSecond  = 500
	ShortPerFrame   = 2
	ShortPerByte    = 1.0 / 16
	ShortMost       = 20_000 // of those that were explained are kept
	TooManyIdle     = "TLS records that carry nothing"
	TooManyOfLittle = "short TLS records"
)

// Finder finds records in a stream of bytes that is cut anywhere. The zero value is ready.
type Finder struct {
	skip  int // bytes of one that are still to come
	have  int // bytes of head
	head  [headLen]byte
	whole int // that came and were not taken

	pieces int // reads in which none became whole, and which were not taken
}

// Find takes account of bytes that came in one read.
func (f *Finder) Find(p []byte) {
	before := f.whole
	f.find(p)
	if f.whole == before && len(p) > 0 {
		f.pieces++
	}
}

// Take returns how many came since it was asked last, and in how many reads none became whole.
func (f *Finder) Take() (n, pieces int) {
	n, pieces = f.whole, f.pieces
	f.whole, f.pieces = 0, 0
	return n, pieces
}

// Rest returns how many bytes of the record under way are still to come, behind its head.
func (f *Finder) Rest() int { return f.skip }

func (f *Finder) find(p []byte) {
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(p))
			p = p[n:]
			if f.skip -= n; f.skip == 0 {
				f.whole++
			}
			continue
		}
		n := copy(f.head[f.have:], p)
		p = p[n:]
		if f.have += n; f.have < headLen {
			return
		}
		f.have = 0
		if f.skip = int(binary.BigEndian.Uint16(f.head[headLen-2:])); f.skip == 0 {
			f.whole++
		}
	}
}

// Meter counts those of a peer against what it sent with them. One goroutine, who reads, uses it. The zero value is
// ready and counts nothing until Begin.
type Meter struct {
	Finder

	begun   bool
	carried int     // reads above TLS that brought something, of which the records were not counted
	idle    float64 // that carry nothing and may still come
	short   float64 // that may
	filled  time.Time
}

// Begin says that TLS was agreed on: what came before is free.
func (m *Meter) Begin(now time.Time) {
	m.Take()
	m.begun, m.carried, m.idle, m.short, m.filled = true, 0, IdleBurst, ShortBurst, now
}

// Carried says that TLS had so many bytes, and what they explain.
func (m *Meter) Carried(n int) {
	m.carried++
	m.explain(float64(n) * ShortPerByte)
}

// Frame says that a frame came.
func (m *Meter) Frame() { m.explain(ShortPerFrame) }

// Count counts the records that came before: TLS asks for more once it has used them, and whoever reads has what they
// carried. It returns of which there were too many, nothing where they are explained. The clock is looked at only
// where they seem not to be.
func (m *Meter) Count(now func() time.Time) string {
	n, pieces := m.Take()
	if !m.begun || n+pieces == 0 {
		return ""
	}
	m.short -= float64(n + pieces)
	if n > 0 {
		m.idle -= float64(max(n-m.carried, 0))
		m.carried = 0
	}
	if m.idle >= 0 && m.short >= 0 {
		return ""
	}
	at := now()
	passed := at.Sub(m.filled).Seconds()
	m.filled = at
	m.idle = min(m.idle+passed*IdlePerSecond, IdleBurst)
	m.short = max(m.short, min(m.short+passed*ShortPerSecond, ShortBurst))
	switch {
	case m.idle < 0:
		return TooManyIdle
	case m.short < 0:
		return TooManyOfLittle
	}
	return ""
}

func (m *Meter) explain(n float64) { m.short = min(m.short+n, ShortMost) }
