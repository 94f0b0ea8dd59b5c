package h2serve

import "sync"

// leastBatch is the least capacity of what is written at a time.
const leastBatch = 4 << 10

// batchSizes are the capacities of batches that are used again: twice as much each time, so that one which grows
// leaves others what it had. Larger ones are not.
var batchSizes = [...]int{leastBatch, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10}

// batches are those that no connection needs now, by capacity, and shells what they are kept in.
var (
	batches [len(batchSizes)]sync.Pool
	shells  sync.Pool
)

// getBatch returns an empty batch with room for n bytes.
func getBatch(n int) []byte {
	for i, size := range batchSizes {
		if n > size {
			continue
		}
		shell, ok := batches[i].Get().(*[]byte)
		if !ok {
			return make([]byte, 0, size)
		}
		b := *shell
		*shell = nil
		shells.Put(shell)
		return b
	}
	return make([]byte, 0, n)
}

// growBatch returns b with room for n more bytes.
func growBatch(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	larger := append(getBatch(len(b)+n), b...)
	putBatch(b)
	return larger
}

// putBatch takes a batch back that must not be used afterwards. One that was appended to beyond its capacity
// counts as the next smaller one.
func putBatch(b []byte) {
	size := cap(b)
	if size > batchSizes[len(batchSizes)-1] {
		return
	}
	for i := len(batchSizes) - 1; i >= 0; i-- {
		if size < batchSizes[i] {
			continue
		}
		shell, ok := shells.Get().(*[]byte)
		if !ok {
			shell = new([]byte)
		}
		*shell = b[:0:batchSizes[i]]
		batches[i].Put(shell)
		return
	}
}
