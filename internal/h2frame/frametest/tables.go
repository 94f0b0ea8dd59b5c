package frametest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// errNotSent says that settings are acknowledged that nobody sent.
var errNotSent = errors.New("settings are acknowledged that were not sent")

// tableSize is that of a table before anybody says anything.
const tableSize = 4096

// Tables decodes header blocks as a peer does that holds the other one to each table size that it
// announced (RFC 7541, sections 4.2 and 6.3; RFC 9113, section 4.3.1). Make it with [NewTables].
type Tables struct {
	dec     *hpack.Decoder
	size    uint32     // of the table, as the other one says
	owed    uint32     // it has to become as small with the next block
	acked   uint32     // what was announced last and acknowledged
	flights [][]uint32 // announced and not acknowledged, by frame
}

// NewTables is for a connection on which so many frames with other settings are under way.
func NewTables(underway int) *Tables {
	t := &Tables{
		dec: hpack.NewDecoder(tableSize, nil), size: tableSize, owed: math.MaxUint32, acked: tableSize, flights: make([][]uint32, underway),
	}
	t.dec.SetAllowedMaxDynamicTableSize(math.MaxUint32)
	return t
}

// Announce states table sizes at random: none, or some in one frame.
func (t *Tables) Announce(dice *rand.Rand, to *http2.Framer) error {
	sizes := []uint32{0, 1, 50, 100, 300, tableSize - 1, tableSize, tableSize + 1, 1 << 16}
	var settings []http2.Setting
	var said []uint32
	for range dice.IntN(4) {
		size := sizes[dice.IntN(len(sizes))]
		settings, said = append(settings, http2.Setting{ID: http2.SettingHeaderTableSize, Val: size}), append(said, size)
	}
	t.flights = append(t.flights, said)
	if err := to.WriteSettings(settings...); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	return nil
}

// Acked takes in that the other one acknowledged the oldest settings.
func (t *Tables) Acked() error {
	if len(t.flights) == 0 {
		return errNotSent
	}
	for _, size := range t.flights[0] {
		if t.acked = size; size < t.size {
			t.owed = min(t.owed, size)
		}
	}
	t.flights = t.flights[1:]
	return nil
}

// Decode decodes a header block. An error says where the other one keeps to another size.
func (t *Tables) Decode(block []byte) ([]hpack.HeaderField, error) {
	most, least := t.most(), t.size
	for len(block) > 0 && block[0]>>5 == 1 {
		size, n := prefixed(block)
		if size > most {
			return nil, fmt.Errorf("a table of %d, and %d is the largest that was announced", size, most)
		}
		// Each by itself: hpack takes a second one for misplaced.
		if _, err := t.dec.DecodeFull(block[:n]); err != nil {
			return nil, fmt.Errorf("decode a size: %w", err)
		}
		t.size, least, block = size, min(least, size), block[n:]
	}
	if least > t.owed {
		return nil, fmt.Errorf("a table of %d, and %d was acknowledged", least, t.owed)
	}
	t.owed = math.MaxUint32
	fields, err := t.dec.DecodeFull(block)
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return fields, nil
}

// most is the largest size that the other one may take.
func (t *Tables) most() uint32 {
	most := t.acked
	for _, flight := range t.flights {
		for _, size := range flight {
			most = max(most, size)
		}
	}
	return most
}

// prefixed reads an integer of a prefix of five bits (RFC 7541, section 5.1), and says how long it is.
func prefixed(b []byte) (value uint32, length int) {
	const mask, more, bits = 0x1f, 0x80, 7
	if value, length = uint32(b[0]&mask), 1; value < mask {
		return value, length
	}
	for shift := 0; length < len(b); shift += bits {
		next := b[length]
		value += uint32(next&^more) << shift
		if length++; next&more == 0 {
			break
		}
	}
	return value, length
}
