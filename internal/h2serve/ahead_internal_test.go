package h2serve

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// chunks are what a connection brings, read by read.
type chunks struct {
	sizes []int
	next  byte
	sent  []byte
}

var errOver = errors.New("over")

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.sizes) == 0 {
		return 0, errOver
	}
	n := min(c.sizes[0], len(p))
	if c.sizes[0] -= n; c.sizes[0] == 0 {
		c.sizes = c.sizes[1:]
	}
	for i := range n {
		p[i] = c.next
		c.next++
	}
	c.sent = append(c.sent, p[:n]...)
	if len(c.sizes) == 0 {
		return n, errOver // with the last of it
	}
	return n, nil
}

// What is read is what came, however it was cut, and little is held while little comes.
func TestAhead(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sizes []int
		large bool // what is held in the end
	}{
		"little":               {[]int{1, 10, 100, readLeast - 1}, false},
		"much":                 {[]int{readMost, readMost, 3 * readMost}, true},
		"as much as is held":   {[]int{readLeast, readLeast}, true},
		"much and then little": {[]int{5 * readMost, 1, 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := &chunks{sizes: tt.sizes}
			a := &ahead{from: from}
			var got []byte
			var err error
			for p := make([]byte, 9); err == nil; p = make([]byte, 1+len(got)%2000) {
				var n int
				if n, err = a.Read(p); n > 0 {
					got = append(got, p[:n]...)
				}
				if b := a.Buffered(); b > 0 && &a.Peek(b)[0] != &a.rest[0] {
					t.Fatal("what is peeked at is not what comes next")
				}
			}
			if !bytes.Equal(got, from.sent) || !errors.Is(err, errOver) {
				t.Errorf("read %d bytes of %d: %v", len(got), len(from.sent), err)
			}
			if (a.most != nil) != tt.large {
				t.Errorf("a large buffer is held: %t", a.most != nil)
			}
			if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errOver) {
				t.Errorf("after the end: %d, %v", n, err)
			}
		})
	}
}

// However much came, what comes next is waited for with little.
func TestAhead_WaitsWithLittle(t *testing.T) {
	t.Parallel()
	a := &ahead{}
	var held []bool
	a.from = reader(func(p []byte) (int, error) {
		held = append(held, a.most != nil)
		return len(p), nil
	})
	for range 4 {
		if _, err := a.Read(make([]byte, readMost)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []bool{false, true, false, true}; !slices.Equal(held, want) {
		t.Errorf("read with much: %t, want %t", held, want)
	}
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }
