package surplus_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/surplus"
)

func newBudget() *surplus.Budget[string] {
	return surplus.New[string](surplus.Config{PerSecond: 200, Burst: 1000, Every: time.Second, Sources: 4096, Kinds: 3})
}

// However many sources there are, so much has room, and of the rest one in a second is told of; nothing is lost of the count.
func TestAllSourcesShareOneBudget(t *testing.T) {
	t.Parallel()
	b, now := newBudget(), time.Unix(1_000_000, 0)
	room, told, tellings := 0, 0, 0
	for second := range 10 {
		for i := range 10_000 { // of 1,000 sources 10 a second each
			ok, due := b.Spend([]string{"denied", "limited"}[i%2], fmt.Sprint(i%1000), now)
			now = now.Add(time.Second / 10_000)
			if ok {
				room++
			}
			if due.N == 0 {
				continue
			}
			tellings++
			told += due.N
			if due.Sources < 900 || due.Sources > 1000 || due.More || due.Kinds["denied"]+due.Kinds["limited"] != due.N || len(due.Kinds) != 2 {
				t.Errorf("second %d: %+v", second, due)
			}
		}
	}
	rest := b.Take()
	if told += rest.N; room+told != 100_000 {
		t.Errorf("%d had room and %d are told of, of 100,000", room, told)
	}
	if room < 2990 || room > 3010 || tellings < 8 || tellings > 10 {
		t.Errorf("%d had room, the rest was told %d times", room, tellings)
	}
}

func TestARestThatNobodyFollowsIsDue(t *testing.T) {
	t.Parallel()
	b, now := newBudget(), time.Unix(1_000_000, 0)
	for i := range 1001 {
		b.Spend("denied", fmt.Sprint(i), now)
	}
	select {
	case <-b.Over():
	default:
		t.Fatal("nobody is told of the rest")
	}
	if early := b.Due(now.Add(999 * time.Millisecond)); early.N != 0 {
		t.Errorf("before it is due: %+v", early)
	}
	if rest := b.Due(now.Add(time.Second)); rest.N != 1 || rest.Sources != 1 || rest.Kinds["denied"] != 1 {
		t.Errorf("the rest is %+v", rest)
	}
	if again := b.Take(); again.N != 0 {
		t.Errorf("it is told twice: %+v", again)
	}
}

// A clock that is set back gives nobody room, and keeps no rest back for long.
func TestRoomComesWithTime(t *testing.T) {
	t.Parallel()
	b, now := newBudget(), time.Unix(1_000_000, 0)
	for range 1000 {
		b.Spend("denied", "a", now)
	}
	if ok, _ := b.Spend("denied", "a", now.Add(-time.Hour)); ok {
		t.Error("there is room in the past")
	}
	if ok, _ := b.Spend("denied", "a", now.Add(10*time.Millisecond)); !ok {
		t.Error("there is no room after a 200th of a second")
	}
}

func TestTheRestIsBounded(t *testing.T) {
	t.Parallel()
	b, now := newBudget(), time.Unix(1_000_000, 0)
	for i := range 11_000 {
		b.Spend(fmt.Sprint("kind", i%5), fmt.Sprint(i), now)
	}
	rest := b.Take()
	if want := map[string]int{"kind0": 2000, "kind1": 2000, "kind2": 2000, "": 4000}; !maps.Equal(rest.Kinds, want) {
		t.Errorf("kinds %v, want %v", rest.Kinds, want)
	}
	if rest.N != 10_000 || rest.Sources != 4096 || !rest.More {
		t.Errorf("%d of %d sources, more %t", rest.N, rest.Sources, rest.More)
	}
}
