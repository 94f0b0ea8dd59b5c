package h2

// mostIndexed is the size of the largest field that takes a place in the table of a connection.
const mostIndexed = 256

// Literals are fields of a request that take no place in the table of header fields that all calls of a connection
// share (RFC 7541, section 6.2.2): what one caller sends costs the others nothing, and is made ready before anybody
// waits for it. The zero value has none. It is not safe for concurrent use.
type Literals struct {
	block []byte
	size  int64 // of the list, as HTTP/2 counts it
}

// Add adds a field. Its name is a token, whose letters become lower case.
func (l *Literals) Add(name, value string) {
	l.block = appendLiteral(l.block, name, value)
	l.size += fieldOverhead + int64(len(name)) + int64(len(value))
}

// Reset removes all fields, and keeps memory for as many as are usual.
func (l *Literals) Reset() {
	const usual = 4 << 10
	if l.size = 0; cap(l.block) > usual {
		l.block = nil
	}
	l.block = l.block[:0]
}

// fieldOverhead is what a field counts beside its bytes (RFC 9113, section 6.5.2).
const fieldOverhead = 32

// appendLiteral appends a field that is not indexed and whose name is not, either. What Huffman's code would save
// is not worth the time that it takes.
func appendLiteral(b []byte, name, value string) []byte {
	b = appendLength(append(b, 0), len(name))
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return append(appendLength(b, len(value)), value...)
}

// appendLength appends the length of a string that is not compressed (RFC 7541, sections 5.1 and 5.2).
func appendLength(b []byte, n int) []byte {
	const (
		most = 1<<7 - 1 // that the first byte has room for
		more = 1 << 7
	)
	if n < most {
		return append(b, byte(n)) //nolint:gosec // below most
	}
	b = append(b, most)
	for n -= most; n >= more; n >>= 7 {
		b = append(b, byte(n)|more)
	}
	return append(b, byte(n))
}
