package proxy

import "encoding/binary"

// mostHeld is the largest message, in bytes and with its head, of which a beginning is held
// back until the rest is there. A larger one is passed on as it comes: it would be memory.
const mostHeld = 16 << 10

// beginning is the beginning of an enveloped message that its receiver does not get before the
// rest is there, since it can use no part of it. So a stream that breaks in the middle of a
// small message ends for its receiver between two, where its protocol can say why. The zero
// value is at the beginning of a stream.
type beginning struct {
	at   envelopes // of what came
	kept []byte
}

// next takes in the next part of the stream, and returns what is to be passed on: what was kept
// where it is a whole message now, or one that is not held, and how much of the part. The rest
// of the part is to be kept.
func (b *beginning) next(p []byte) (before, whole []byte) {
	b.at.advance(p)
	open := b.open()
	if open > len(p) {
		return nil, nil
	}
	return b.rest(), p[:len(p)-open]
}

// keep holds bytes back.
func (b *beginning) keep(p []byte) { b.kept = append(b.kept, p...) }

// rest returns what was kept, which is kept no longer than until the next call.
func (b *beginning) rest() []byte {
	kept := b.kept
	b.kept = b.kept[:0]
	return kept
}

// open is how many bytes there are of a message that is to be held.
func (b *beginning) open() int {
	if b.at.have > 0 || b.at.left == 0 {
		return b.at.have
	}
	size := envelopeHead + uint64(binary.BigEndian.Uint32(b.at.head[1:]))
	if size > mostHeld {
		return 0
	}
	return int(size - b.at.left) //nolint:gosec // at most mostHeld
}
