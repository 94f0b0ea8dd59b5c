// Package prescan counts what is in a message before anybody decodes it: of a few bytes on
// the wire a decoder makes many in memory.
package prescan

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field is what a message may have of one of its fields.
type Field struct {
	Name string
	// Count bounds how often it is there, Bytes how long each is. Zero sets no bound.
	Count, Bytes int
}

// Fields are those of one message. Any other field is skipped.
type Fields struct {
	Known map[protowire.Number]Field
	// Most bounds the fields in all, unknown ones and those of nested groups among them.
	Most int
}

// Scanner looks at a message of Protocol Buffers while it arrives, and keeps none of it.
// It knows the fields of the message itself, not what is in them. Make it with
// [NewScanner]. It is for one goroutine.
type Scanner struct {
	fields *Fields // fixed at creation
	counts map[protowire.Number]int
	all    int

	state  state
	number protowire.Number
	value  uint64 // of the varint so far
	shift  uint
	skip   uint64 // bytes of a value that are still to come
}

// Of the wire (https://protobuf.dev/programming-guides/encoding).
const (
	varintBits = 64
	groupBits  = 7    // of a varint in one byte
	more       = 0x80 // says that another byte of it follows
	fixed32Len = 4
	fixed64Len = 8
)

type state int

const (
	inTag state = iota
	inVarint
	inLength
	inValue
	lost // it is malformed: the decoder says so
)

// NewScanner returns a scanner at the beginning of a message.
func NewScanner(fields *Fields) *Scanner {
	return &Scanner{fields: fields, counts: map[protowire.Number]int{}}
}

// Scan looks at the next bytes. The error names the field of which there is too much, and is
// fit for who sent it.
func (s *Scanner) Scan(p []byte) error {
	for len(p) > 0 && s.state != lost {
		if s.state == inValue {
			n := min(s.skip, uint64(len(p)))
			p = p[n:]
			if s.skip -= n; s.skip == 0 {
				s.state = inTag
			}
			continue
		}
		c := p[0]
		p = p[1:]
		if s.shift >= varintBits {
			s.state = lost
			break
		}
		s.value |= uint64(c&^more) << s.shift
		s.shift += groupBits
		if c&more != 0 {
			continue
		}
		v := s.value
		s.value, s.shift = 0, 0
		if err := s.take(v); err != nil {
			return err
		}
	}
	return nil
}

// take takes a varint that is there.
func (s *Scanner) take(v uint64) error {
	switch s.state {
	case inVarint:
		s.state = inTag
	case inLength:
		return s.length(v)
	case inTag:
		return s.tag(v)
	case inValue, lost:
	}
	return nil
}

func (s *Scanner) tag(v uint64) error {
	number, wireType := protowire.DecodeTag(v)
	s.number = number
	if number < 1 {
		s.state = lost
		return nil
	}
	switch wireType {
	case protowire.VarintType:
		s.state = inVarint
	case protowire.BytesType:
		s.state = inLength
	case protowire.Fixed32Type:
		s.state, s.skip = inValue, fixed32Len
	case protowire.Fixed64Type:
		s.state, s.skip = inValue, fixed64Len
	case protowire.StartGroupType, protowire.EndGroupType: // what is in it counts as fields
	default:
		s.state = lost
		return nil
	}
	if s.all++; s.all > s.fields.Most {
		return fmt.Errorf("the message has more than %d fields", s.fields.Most)
	}
	f, ok := s.fields.Known[number]
	if !ok || f.Count == 0 {
		return nil
	}
	if s.counts[number]++; s.counts[number] > f.Count {
		return fmt.Errorf("%s: has more than %d entries", f.Name, f.Count)
	}
	return nil
}

func (s *Scanner) length(v uint64) error {
	if f := s.fields.Known[s.number]; f.Bytes > 0 && v > uint64(f.Bytes) {
		return fmt.Errorf("%s: has more than %d bytes", f.Name, f.Bytes)
	}
	if s.state, s.skip = inValue, v; v == 0 {
		s.state = inTag
	}
	return nil
}
