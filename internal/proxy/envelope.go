package proxy

import "encoding/binary"

// envelopes follows a stream of enveloped messages to know where one ends. The
// zero value is at the beginning of a stream.
type envelopes struct {
	head  [envelopeHead]byte
	have  int    // bytes of head
	left  uint64 // bytes of the message still to come
	ended bool   // the last envelope, with the outcome, has begun
}

// advance takes in the next part of the stream.
func (e *envelopes) advance(p []byte) { e.follow(p, nil) }

// follow does what advance does, and has the last envelope kept where somebody wants it.
func (e *envelopes) follow(p []byte, last *Outcome) {
	for len(p) > 0 {
		if e.left > 0 {
			n := min(e.left, uint64(len(p)))
			if last != nil && e.ended {
				last.keep(p[:n])
			}
			e.left -= n
			p = p[n:]
			continue
		}
		n := copy(e.head[e.have:], p)
		e.have += n
		p = p[n:]
		if e.have == envelopeHead {
			e.have = 0
			e.left = uint64(binary.BigEndian.Uint32(e.head[1:]))
			e.ended = e.ended || e.head[0]&(flagConnectEnd|flagGRPCWebEnd) != 0
		}
	}
}

// between reports whether the stream is between two messages and not at its end.
func (e *envelopes) between() bool {
	return e.have == 0 && e.left == 0 && !e.ended
}
