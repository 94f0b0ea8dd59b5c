package h2

import "sync"

// bufferSizes are the capacities in which buffers are kept for reuse. The
// largest is what one stream may have received without anybody reading it.
var bufferSizes = [...]int{intakeLeast, 1 << 10, 4 << 10, 16 << 10, leastAhead, 64 << 10, gatherBody, streamWindow}

// pools has one pool for each size.
var pools [len(bufferSizes)]sync.Pool

// Buffer is bytes with a place to which they go back.
type Buffer struct {
	B []byte
}

// GetBuffer returns an empty buffer with a capacity of at least n.
func GetBuffer(n int) *Buffer {
	for i, size := range bufferSizes {
		if n > size {
			continue
		}
		if b, ok := pools[i].Get().(*Buffer); ok {
			return b
		}
		return &Buffer{B: make([]byte, 0, size)}
	}
	return &Buffer{B: make([]byte, 0, n)}
}

// Release gives the buffer back; it must not be used afterwards. A nil buffer is
// ignored.
func (b *Buffer) Release() {
	if b == nil {
		return
	}
	for i, size := range bufferSizes {
		if cap(b.B) == size {
			b.B = b.B[:0]
			pools[i].Put(b)
			return
		}
	}
}

// appendBuffer appends data to b, which may be nil, moving to a larger buffer
// where b is too small.
func appendBuffer(b *Buffer, data []byte) *Buffer {
	if b == nil {
		b = GetBuffer(len(data))
	}
	if need := len(b.B) + len(data); need > cap(b.B) {
		larger := GetBuffer(need)
		larger.B = append(larger.B, b.B...)
		b.Release()
		b = larger
	}
	b.B = append(b.B, data...)
	return b
}
