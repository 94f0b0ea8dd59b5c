package h2serve

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

const (
	longPiece   = 4 << 10 // bytes of a header block in one frame, for which no room is kept
	usualFields = 12      // of a request, for which there is room at first
	expands     = 2       // characters that a byte of Huffman's code has at most, rounded up
	manyFields  = 64      // of a head, beyond which each is told to the meter
	asMany      = 50      // of them, for which each that follows counts as one more: who asks meanwhile waits for the whole head
	mostAsMany  = 20      // that one field counts more
	mostBlock   = 8       // times what is taken is how long a block may be that is read to its end
	kindBytes   = 128     // of a content type that is kept of a head that is too large
	contentType = "content-type"
)

var (
	errTooLong = errors.New("a header block is longer than the peer may send") // beyond what is read and dropped
	errField   = errors.New("a field of the request is malformed")
)

// heads puts the header blocks of a connection together. One that holds more than is taken is read to its
// end, so that only its request fails, and little of it is kept: the pseudo-header fields that came before,
// and the content type, which says how an answer looks.
type heads struct {
	most    uint32 // bytes that are taken, as HTTP/2 counts them
	table   uint32 // size of the decoder's
	decoder *hpack.Decoder

	largest  int // bytes of the last block in one frame
	fields   []hpack.HeaderField
	room     *[usualFields]hpack.HeaderField // of fields, until they are released; nil for none
	left     uint32                          // of most
	trailers uint32                          // of most, for the names in Trailer, each of which is a field
	regular  bool                            // fields came that are no pseudo-header ones
	large    bool
	bad      bool
	broken   bool // a field is none that HTTP/2 has, or has at its place
	beyond   int  // how much larger the fields are than the block they came in, as HTTP/2 counts them
	over     int  // how many fields came, less those that are usual
	many     int  // what those that are more count
}

func newHeads(most uint32) *heads {
	h := &heads{most: most, table: tableSize}
	h.decoder = hpack.NewDecoder(tableSize, h.emit)
	h.decoder.SetMaxStringLength(int(max(most, leastString)) * expands)
	return h
}

// rooms are those for the usual fields of heads.
var rooms = sync.Pool{New: func() any { return new([usualFields]hpack.HeaderField) }}

// release has nobody look at the fields any more that were read last.
func (h *heads) release() {
	if h.room != nil {
		clear(h.room[:])
		rooms.Put(h.room)
		h.room = nil
	}
}

// read reads the block that a frame begins. next returns the frames after it. Its fields may be looked at until they are released.
func (h *heads) read(f *http2.HeadersFrame, next func() (http2.Frame, error)) (*http2.MetaHeadersFrame, error) {
	h.release()
	h.room, _ = rooms.Get().(*[usualFields]hpack.HeaderField)
	h.fields, h.left, h.trailers = h.room[:0], h.most, h.most
	h.regular, h.large, h.bad, h.broken, h.beyond = false, false, false, false, 0
	h.over, h.many = -manyFields, 0
	var err error
	first := f.HeaderBlockFragment()
	if h.largest = len(first); f.HeadersEnded() {
		h.resize(first)
		h.beyond -= len(first)
		if _, broken := h.decoder.Write(first); broken != nil {
			err = errCompression
		}
	} else {
		err = h.continued(first, next)
	}
	if h.largest > longPiece && err == nil {
		err = h.forget()
	}
	out := &http2.MetaHeadersFrame{HeadersFrame: f, Fields: h.fields, Truncated: h.large}
	h.fields = nil
	switch {
	case err != nil:
		return nil, err
	case h.decoder.Close() != nil:
		return nil, errCompression
	case h.bad:
		return nil, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol, Cause: errField}
	}
	return out, nil
}

// forget has the decoder refer to nothing of a long block, which it does until the next one comes: it is told its table's size.
func (h *heads) forget() error {
	if h.decoder.Close() != nil {
		return errCompression
	}
	const update, prefix, more, continues = 0x20, 0x1f, 7, 0x80
	block := []byte{update | byte(min(h.table, prefix))}
	if rest := h.table - prefix; h.table >= prefix {
		for ; rest >= continues; rest >>= more {
			block = append(block, byte(rest%continues)|continues)
		}
		block = append(block, byte(rest))
	}
	if _, err := h.decoder.Write(block); err != nil {
		return errCompression
	}
	return nil
}

// errCompression ends a connection on which the peer's table is not known any more.
const errCompression = http2.ConnectionError(http2.ErrCodeCompression)

// continued reads a block that goes on in other frames.
func (h *heads) continued(piece []byte, next func() (http2.Frame, error)) error {
	s := &sieve{decoder: h.decoder, longest: uint64(max(h.most, leastString)), table: &h.table, loose: h.tooLarge}
	length, most := 0, mostBlock*int(max(h.most, leastString))
	for last := false; ; {
		if length += len(piece) + h2frame.HeadLen; length > most {
			return errTooLong
		}
		if h.broken { // of which nobody honest sends more
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		h.beyond -= len(piece)
		if s.write(piece) != nil {
			return errCompression
		}
		if last {
			break
		}
		f, err := next()
		if err != nil {
			return err
		}
		more, ok := f.(*http2.ContinuationFrame) // as the framer sees to
		if !ok {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		piece, last = more.HeaderBlockFragment(), more.HeadersEnded()
		h.largest = max(h.largest, len(piece))
	}
	if !s.whole() {
		return errCompression
	}
	return nil
}

// resize notes what a block says of the table's size, which stands at its beginning.
func (h *heads) resize(block []byte) {
	const update, prefix, more, continues = 0x20, 0x1f, 7, 0x80
	for len(block) > 0 && block[0]&0xe0 == update {
		n, i := uint32(block[0]&prefix), 1
		for whole := n < prefix; !whole && i < len(block) && i < 5; i++ {
			n += uint32(block[i]&^continues) << (more * (i - 1))
			whole = block[i]&continues == 0
		}
		h.table, block = min(n, tableSize), block[i:]
	}
}

// worth returns how much more there was to do than the bytes that came say, since it was asked last: a byte
// may stand for a field as large as the table. And it returns what the fields count that
// there were beyond those that are usual.
func (h *heads) worth() (beyond, many int) {
	beyond, many = max(h.beyond, 0), h.many
	h.beyond -= beyond
	h.many -= many
	return beyond, many
}

// emit takes a field. At those that nobody wants any more it does not look.
func (h *heads) emit(f hpack.HeaderField) {
	h.beyond += int(f.Size())
	if h.over++; h.over > 0 {
		h.many++
	}
	if h.bad {
		return
	}
	if h.take(f); h.over > 0 && !h.large {
		h.many += min(h.over/asMany, mostAsMany)
	}
}

func (h *heads) take(f hpack.HeaderField) {
	pseudo := strings.HasPrefix(f.Name, ":")
	switch {
	case h.large:
		if f.Name == contentType && len(f.Value) <= kindBytes && httpguts.ValidHeaderFieldValue(f.Value) && !h.hasKind() {
			h.fields = append(h.fields, f)
		}
		return
	case pseudo && h.regular, !pseudo && !validName(f.Name), !httpguts.ValidHeaderFieldValue(f.Value):
		h.bad, h.broken, h.fields = true, true, nil
		return
	case pseudo && !h.isNew(f.Name):
		h.bad, h.fields = true, nil
		return
	}
	h.regular = h.regular || !pseudo
	if !h.pays(f) {
		h.tooLarge()
		h.take(f)
		return
	}
	h.fields = append(h.fields, f)
}

// isNew reports whether a pseudo-header field is one of a request that did not come yet.
func (h *heads) isNew(name string) bool {
	switch name {
	case ":method", ":path", ":scheme", ":authority", ":protocol":
		return !slices.ContainsFunc(h.fields, func(f hpack.HeaderField) bool { return f.Name == name })
	}
	return false
}

// hasKind reports whether the content type is known: one is kept, however often a head that is too large says it.
func (h *heads) hasKind() bool {
	return slices.ContainsFunc(h.fields, func(f hpack.HeaderField) bool { return f.Name == contentType })
}

// pays takes a field off what is left, and reports whether it was enough.
func (h *heads) pays(f hpack.HeaderField) bool {
	left, size := &h.left, uint64(f.Size())
	if f.Name == "trailer" {
		names := uint64(strings.Count(f.Value, ",")) + 1 //nolint:gosec // a count
		none := uint64(hpack.HeaderField{}.Size())
		left, size = &h.trailers, uint64(len(f.Value))-(names-1)+names*none
	}
	if size > uint64(*left) {
		return false
	}
	*left -= uint32(size) //nolint:gosec // at most left
	return true
}

// tooLarge notes that there is more than is taken.
func (h *heads) tooLarge() {
	if h.large {
		return
	}
	h.large = true
	h.fields = slices.DeleteFunc(h.fields, func(f hpack.HeaderField) bool {
		return !strings.HasPrefix(f.Name, ":") && (f.Name != contentType || len(f.Value) > kindBytes)
	})
}

// validName reports whether a field name is a token without upper case.
func validName(name string) bool {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' || !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return name != ""
}
