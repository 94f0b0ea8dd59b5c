package h2serve

import (
	"golang.org/x/net/http2/hpack"
)

// leastString is a string in a header block, as it is encoded, that is larger than the table in any case: a byte
// of HPACK's Huffman code has four fifteenths of a character at least. One frame holds none that is longer.
const leastString = leastFrame

// spot is what of a field comes next in a header block (RFC 7541, section 6).
type spot int

const (
	beginning spot = iota
	inName
	inValue
)

// sieve passes what is in a header block on to a decoder, whatever frames the block is cut into, and keeps
// nothing of a string that is longer than it takes: that comes out empty. The table is as if it had been read.
type sieve struct {
	decoder *hpack.Decoder
	longest uint64  // string that is taken, as it is encoded
	table   *uint32 // size of the decoder's table
	loose   func()  // is told before an empty string comes in the place of one

	out  []byte // that is passed on next
	ends int    // where in it the last whole field ends: the decoder keeps room as large as the part of one that it was given
	part spot
	held []byte // of an integer whose end did not come yet
	mask byte   // of its first byte
	n    uint64 // what it is so far

	update  bool // it is the size of the table
	indexed bool // a field that was there before
	added   bool // the field goes into the table

	inString bool
	left     uint64 // of it
	skips    bool   // that is too long
	dropped  bool   // one of the field was
}

// write passes on a piece of a block.
func (s *sieve) write(p []byte) error {
	for len(p) > 0 {
		if !s.inString {
			if err := s.octet(p[0]); err != nil {
				return err
			}
			p = p[1:]
		} else {
			n := min(s.left, uint64(len(p)))
			if !s.skips {
				s.out = append(s.out, p[:n]...)
			}
			p, s.left = p[n:], s.left-n
		}
		if s.inString && s.left == 0 {
			if err := s.stringEnds(); err != nil {
				return err
			}
		}
	}
	return s.pass()
}

// whole reports that a block may end here.
func (s *sieve) whole() bool { return s.part == beginning && len(s.held) == 0 }

// pass passes whole fields on.
func (s *sieve) pass() error {
	_, err := s.decoder.Write(s.out[:s.ends])
	s.out, s.ends = append(s.out[:0], s.out[s.ends:]...), 0
	return err //nolint:wrapcheck // a connection error, whatever it says
}

// octet takes the next byte of an integer (RFC 7541, section 5.1).
func (s *sieve) octet(b byte) error {
	const more, continues, longest = 7, 0x80, 9
	var whole bool
	if len(s.held) == 0 {
		s.begin(b)
		s.n = uint64(b & s.mask)
		whole = b&s.mask != s.mask
	} else {
		s.n += uint64(b&^continues) << (more * (len(s.held) - 1))
		whole = b&continues == 0
	}
	if s.held = append(s.held, b); !whole {
		if len(s.held) == longest {
			return hpack.ErrStringLength
		}
		return nil
	}
	err := s.known()
	s.held = s.held[:0]
	return err
}

// begin says what begins with a byte.
func (s *sieve) begin(b byte) {
	if s.part != beginning {
		s.mask = 0x7f
		return
	}
	s.update, s.indexed, s.added, s.dropped = false, false, false, false
	switch {
	case b&0x80 != 0:
		s.indexed, s.mask = true, 0x7f
	case b&0x40 != 0:
		s.added, s.mask = true, 0x3f
	case b&0x20 != 0:
		s.update, s.mask = true, 0x1f
	default:
		s.mask = 0x0f
	}
}

// known takes in what an integer is.
func (s *sieve) known() error {
	if s.part != beginning { // it is the length of a string
		s.inString, s.left, s.skips = true, s.n, s.n > s.longest
		if s.skips {
			s.dropped = true
			err := s.pass() // the fields before it
			s.loose()
			s.out = append(s.out, 0) // the empty string
			return err
		}
	}
	s.out = append(s.out, s.held...)
	switch {
	case s.part != beginning:
	case s.indexed:
		s.ends = len(s.out)
	case s.update:
		s.ends = len(s.out)
		*s.table = uint32(min(s.n, tableSize)) // more is an error of the decoder's
	case s.n == 0:
		s.part = inName
	default:
		s.part = inValue
	}
	return nil
}

// stringEnds takes in the end of a string, and of a field. One that is larger than the table empties it
// (RFC 7541, section 4.4).
func (s *sieve) stringEnds() error {
	s.inString = false
	if s.part == inName {
		s.part = inValue
		return nil
	}
	s.part, s.ends = beginning, len(s.out)
	if !s.added || !s.dropped {
		return nil
	}
	if err := s.pass(); err != nil {
		return err
	}
	s.decoder.SetMaxDynamicTableSize(0)
	s.decoder.SetMaxDynamicTableSize(*s.table)
	return nil
}
