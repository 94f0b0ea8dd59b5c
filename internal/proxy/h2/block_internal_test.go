package h2

import (
	"bytes"
	"errors"
	"testing"
)

// A block of more fields than an answer may have is read on, and nothing of it is kept while it comes: the count of all
// heads of an answer is taken only at its end.
func TestAudit_H48_ALargeBlockIsNotKept(t *testing.T) {
	t.Parallel()
	const limit, age = 256 << 10, 0x95 // "age", empty, in the table of the protocol: 35 bytes of a list
	var b headerBlock
	b.init(limit)
	b.begin(1, false)
	most, n := 0, 0
	for ; b.err == nil; n++ {
		if n > limit {
			t.Fatal("there is no bound")
		}
		if _, err := b.add(bytes.Repeat([]byte{age}, 100), false); err != nil {
			t.Fatal(err)
		}
		most = max(most, cap(b.fields))
	}
	if !errors.Is(b.err, ErrFields) || b.fields != nil || n*100 > MostFields+100 || most > 2*MostFields {
		t.Errorf("%d of %d fields are kept, at most in the place of %d: %v", len(b.fields), n*100, most, b.err)
	}
	for range 1_000 { // the rest of it
		if _, err := b.add(bytes.Repeat([]byte{age}, 100), false); err != nil {
			t.Fatal(err)
		}
	}
	if whole, err := b.add(nil, true); !whole || err != nil || b.fields != nil || !errors.Is(b.err, ErrFields) {
		t.Errorf("its end: %t, %v; %d fields, %v", whole, err, len(b.fields), b.err)
	}
}
