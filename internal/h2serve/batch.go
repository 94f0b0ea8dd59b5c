package h2serve

import "sync"

// Capacities of what is written at a time.
const (
	leastBatch = 4 << 10
	keepBatch  = 512 << 10 // larger ones are not used again
)

// batches are those that no connection needs now, and shells what they are kept in.
var batches, shells sync.Pool

func getBatch() []byte {
	shell, ok := batches.Get().(*[]byte)
	if !ok {
		return make([]byte, 0, leastBatch)
	}
	b := *shell
	*shell = nil
	shells.Put(shell)
	return b
}

func putBatch(b []byte) {
	if cap(b) < leastBatch || cap(b) > keepBatch {
		return
	}
	shell, ok := shells.Get().(*[]byte)
	if !ok {
		shell = new([]byte)
	}
	*shell = b[:0]
	batches.Put(shell)
}
