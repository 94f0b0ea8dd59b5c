package semrange

import (
	"fmt"
	"sync"
	"testing"
)

func TestWhatIsKeptOfConstraints(t *testing.T) {
	t.Parallel()

	var k constraints

	k.keep(Constraint{raw: "first"})

	var working sync.WaitGroup
	for of := range 4 {
		working.Go(func() {
			for i := range 10 * mostLately {
				k.keep(Constraint{raw: fmt.Sprint(of, i)})

				if _, ok := k.get("first"); i%(mostLately/8) == 0 && !ok {
					t.Error("what is asked for again is gone")
				}
			}
		})
	}

	working.Wait()

	if n := len(k.newer) + len(k.old); n > 2*mostLately {
		t.Errorf("%d are kept", n)
	}

	if _, ok := k.get(fmt.Sprint(0, 0)); ok {
		t.Error("what nobody asks for stays")
	}
}
