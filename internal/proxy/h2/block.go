package h2

import (
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

const usualFields = 8 // header fields for which there is room at first

// headerBlock is the header block that is being read. A list over the bound or
// with a field that is not valid is read to its end all the same, so that the
// compression state of the connection stays whole and only its stream fails. What is
// read so is counted, and not kept.
type headerBlock struct {
	limit   int64 // of size
	decoder *hpack.Decoder

	stream  uint32
	end     bool // of the stream
	fields  []hpack.HeaderField
	pseudo  int   // how many of them are pseudo-header fields
	count   int   // of the others, also those that are not kept
	held    int   // bytes that the list holds
	size    int64 // of the list, as HTTP/2 counts it
	encoded int
	err     error // what is wrong with the list
}

func (b *headerBlock) init(limit uint32) {
	b.limit = int64(limit)
	b.decoder = hpack.NewDecoder(tableSize, b.emit)
	b.decoder.SetMaxStringLength(largestBlock)
}

// take reads a frame into the block if it is part of one. It reports whether the
// frame can be handled: it is another one, or the block is complete.
func (b *headerBlock) take(frame http2.Frame) (bool, error) {
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		b.begin(f.StreamID, f.StreamEnded())
		return b.add(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		return b.add(f.HeaderBlockFragment(), f.HeadersEnded())
	default:
		return true, nil
	}
}

func (b *headerBlock) begin(stream uint32, end bool) {
	b.stream, b.end = stream, end
	b.fields, b.pseudo, b.size, b.encoded, b.err = make([]hpack.HeaderField, 0, usualFields), 0, 0, h2frame.HeadLen, nil
	b.count, b.held = 0, 0
}

func (b *headerBlock) add(fragment []byte, last bool) (bool, error) {
	if b.encoded += h2frame.HeadLen + len(fragment); b.encoded > largestBlock {
		return false, errFlood
	}
	if _, err := b.decoder.Write(fragment); err != nil {
		return false, http2.ConnectionError(http2.ErrCodeCompression)
	}
	if b.size > max(largestList, b.limit) {
		return false, errFlood
	}
	if !last {
		return false, nil
	}
	if err := b.decoder.Close(); err != nil {
		return false, http2.ConnectionError(http2.ErrCodeCompression)
	}
	return true, nil
}

// emit takes a field of the list.
func (b *headerBlock) emit(f hpack.HeaderField) {
	pseudo := strings.HasPrefix(f.Name, ":")
	if !pseudo {
		b.count++
	}
	if b.size += int64(f.Size()); b.err != nil {
		return
	}
	switch {
	case b.size > b.limit:
		b.err = ErrHeaderBytes
	case b.count > MostFields:
		b.err = ErrFields
	case pseudo && (b.pseudo < len(b.fields) || f.Name != pseudoStatus || b.pseudo > 0):
		b.err = errPseudo
	case !pseudo && !validName(f.Name), !httpguts.ValidHeaderFieldValue(f.Value):
		b.err = errField
	case pseudo:
		b.pseudo++
	}
	if b.err != nil {
		b.fields = nil
		return
	}
	b.fields = append(b.fields, f)
	b.held += fieldHolds + len(f.Name) + len(f.Value)
}

// status is the value of the pseudo-header field of a response, "" if it has none.
func (b *headerBlock) status() string {
	if b.pseudo == 0 {
		return ""
	}
	return b.fields[0].Value
}

// interim reports whether more heads follow.
func (b *headerBlock) interim() bool { return b.err == nil && strings.HasPrefix(b.status(), "1") }

// regular is the list without pseudo-header fields.
func (b *headerBlock) regular() []hpack.HeaderField { return b.fields[b.pseudo:] }

// validName reports whether a field name is a token without upper case.
func validName(name string) bool {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' || !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return name != ""
}
