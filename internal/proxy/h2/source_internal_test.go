package h2

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// pieces is a reader that gives so much at a time, and an error with the last piece.
type pieces struct {
	sizes []int
	next  byte
}

var errLast = errors.New("last")

func (r *pieces) Read(p []byte) (int, error) {
	n := min(len(p), r.sizes[0])
	for i := range n {
		p[i] = r.next
		r.next++
	}
	if r.sizes[0] -= n; r.sizes[0] > 0 {
		return n, nil
	}
	if r.sizes = r.sizes[1:]; len(r.sizes) == 0 {
		r.sizes = []int{0}
		return n, errLast
	}
	return n, nil
}

// What comes is passed on whole, in whichever pieces, and the error after it.
func TestSource_PassesEverythingOn(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		r, total := &pieces{}, 0
		for range 40 {
			n := 1 + random.IntN(1<<random.IntN(17))
			r.sizes, total = append(r.sizes, n), total+n
		}
		s := &source{from: r}
		var got []byte
		for {
			p := make([]byte, 1+random.IntN(5000))
			n, err := s.Read(p)
			got = append(got, p[:n]...)
			if b := s.Buffered(); b > 0 && s.Peek(1)[0] != byte(len(got)) {
				t.Fatalf("seed %d: peeked %d after %d bytes", seed, s.Peek(1)[0], len(got))
			}
			if err != nil {
				if !errors.Is(err, errLast) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				break
			}
		}
		want := make([]byte, total)
		for i := range want {
			want[i] = byte(i)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d: %d bytes, want %d", seed, len(got), total)
		}
	}
}

// It holds much while much comes, and little once little does.
func TestSource_HoldsLittleWhileLittleComes(t *testing.T) {
	t.Parallel()
	s := &source{from: &pieces{sizes: []int{100, readLeast, 3 * readMost, 100, 100, 100}}}
	most, last := 0, 0
	for {
		if _, err := io.ReadFull(s, make([]byte, 100)); err != nil {
			break
		}
		last = cap(s.all.B)
		most = max(most, last)
	}
	if most != readMost || last != readLeast {
		t.Errorf("at most %d, in the end %d", most, last)
	}
}
