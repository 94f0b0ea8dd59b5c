package limiter_test

import (
	"math"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/limiter"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// taken calls Allow until it refuses, at most limit times, and returns how often
// it allowed.
func taken(l *limiter.Limiter, key string, perSecond float64, burst int, now time.Time, limit int) int {
	n := 0
	for n < limit && l.Allow(key, perSecond, burst, now) {
		n++
	}
	return n
}

func wantTaken(t *testing.T, l *limiter.Limiter, key string, perSecond float64, burst int, now time.Time, want int) {
	t.Helper()
	if got := taken(l, key, perSecond, burst, now, 1000); got != want {
		t.Errorf("%s: %d calls at %s passed, want %d", key, got, now.Sub(noon), want)
	}
}

func TestAllow_BurstThenRate(t *testing.T) {
	t.Parallel()
	l := limiter.New(10)
	wantTaken(t, l, "a", 2, 5, noon, 5)
	wantTaken(t, l, "a", 2, 5, noon.Add(499*time.Millisecond), 0)
	wantTaken(t, l, "a", 2, 5, noon.Add(time.Second), 2)
	wantTaken(t, l, "a", 2, 5, noon.Add(time.Hour), 5)
	wantTaken(t, l, "b", 2, 5, noon.Add(time.Hour), 5)
}

func TestAllow_OddLimits(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		perSecond   float64
		burst       int
		first, hour int // calls of 1000 that pass, at once and an hour later
	}{
		"zero":             {0, 0, 0, 0},
		"no burst":         {10, 0, 0, 0},
		"negative burst":   {10, -1, 0, 0},
		"no refill":        {0, 3, 3, 0},
		"negative refill":  {-1, 3, 3, 0},
		"not a number":     {math.NaN(), 3, 3, 0},
		"minus infinity":   {math.Inf(-1), 3, 3, 0},
		"infinity":         {math.Inf(1), 0, 1000, 1000},
		"largest float":    {math.MaxFloat64, 0, 1000, 1000},
		"smallest refill":  {math.SmallestNonzeroFloat64, 3, 3, 0},
		"very large burst": {1, math.MaxInt, 1000, 1000},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := limiter.New(2)
			wantTaken(t, l, "a", tt.perSecond, tt.burst, noon, tt.first)
			wantTaken(t, l, "a", tt.perSecond, tt.burst, noon.Add(time.Hour), tt.hour)
			l.Allow("b", tt.perSecond, tt.burst, noon)
			l.Allow("c", tt.perSecond, tt.burst, noon) // looks for a place
			if l.Len() > 2 {
				t.Errorf("%d buckets", l.Len())
			}
			if tt.hour == 0 {
				wantTaken(t, l, "a", tt.perSecond, tt.burst, noon.Add(time.Hour), 0)
			}
		})
	}
}

func TestAllow_AChangedLimitTakesEffect(t *testing.T) {
	t.Parallel()
	for name, maxKeys := range map[string]int{"own bucket": 10, "shared bucket": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changedLimit(t, limiter.New(maxKeys))
		})
	}
}

func changedLimit(t *testing.T, l *limiter.Limiter) {
	t.Helper()
	wantTaken(t, l, "a", 1, 10, noon, 10)
	// Faster: 100 a second from now on, and no gift for the change itself.
	wantTaken(t, l, "a", 100, 10, noon, 0)
	wantTaken(t, l, "a", 100, 10, noon.Add(50*time.Millisecond), 5)
	// A larger burst has its room at once, and going to and fro gains nothing.
	wantTaken(t, l, "a", 100, 20, noon.Add(50*time.Millisecond), 10)
	wantTaken(t, l, "a", 100, 10, noon.Add(50*time.Millisecond), 0)
	wantTaken(t, l, "a", 100, 20, noon.Add(50*time.Millisecond), 0)
	wantTaken(t, l, "a", 100, 10, noon.Add(140*time.Millisecond), 0) // 11 are still taken
	wantTaken(t, l, "a", 100, 20, noon.Add(time.Second), 20)
	// A smaller one cuts what was gained.
	wantTaken(t, l, "a", 100, 3, noon.Add(time.Minute), 3)
	// None at all stops the key.
	wantTaken(t, l, "a", 100, 0, noon.Add(time.Hour), 0)
}

func TestAllow_TimeThatRunsBackwardsGainsNothing(t *testing.T) {
	t.Parallel()
	for name, maxKeys := range map[string]int{"own bucket": 10, "shared bucket": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := limiter.New(maxKeys)
			wantTaken(t, l, "a", 1, 10, noon.Add(-time.Hour), 10)
			for i := range 5 {
				if !l.Allow("a", 1, 10, noon) || !l.Allow("a", 1, 10, noon.Add(-time.Minute)) {
					t.Fatalf("round %d is refused", i)
				}
			}
			wantTaken(t, l, "a", 1, 10, noon, 0)
		})
	}
}

// A flood of keys that the attacker chooses resets no bucket, uses up nobody's
// budget, and gets one shared bucket where there is no place.
func TestAudit_H50_AFloodOfKeysTouchesNobodysBudget(t *testing.T) {
	t.Parallel()
	for _, maxKeys := range []int{2, 100, 5000} {
		t.Run(strconv.Itoa(maxKeys), func(t *testing.T) {
			t.Parallel()
			const burst, slow, flood = 10, 0.001, 20_000
			l := limiter.New(maxKeys)
			wantTaken(t, l, "exhausted", slow, burst, noon, burst)
			if !l.Allow("honest", slow, burst, noon) {
				t.Fatal("a new key is refused")
			}
			passed := 0
			for i := range flood {
				if l.Allow("flood-"+strconv.Itoa(i), slow, burst, noon.Add(time.Millisecond)) {
					passed++
				}
			}
			if want := maxKeys - 2 + burst; passed > want {
				t.Errorf("%d calls of the flood passed, want at most %d", passed, want)
			}
			if l.Len() > maxKeys {
				t.Errorf("%d buckets, want at most %d", l.Len(), maxKeys)
			}
			now := noon.Add(time.Second)
			wantTaken(t, l, "exhausted", slow, burst, now, 0)
			wantTaken(t, l, "honest", slow, burst, now, burst-1)
			wantTaken(t, l, "newcomer", slow, burst, now, 0)

			// When the flood is over, a new key has its own bucket again.
			wantTaken(t, l, "newcomer", slow, burst, now.Add(24*time.Hour), burst)
			if l.Len() > maxKeys {
				t.Errorf("%d buckets, want at most %d", l.Len(), maxKeys)
			}
		})
	}
}

func TestAllow_OnlyAFullBucketMakesRoom(t *testing.T) {
	t.Parallel()
	const keys = 8
	for idle := range keys {
		l := limiter.New(keys)
		for i := range keys {
			for range 4 {
				l.Allow(strconv.Itoa(i), 1, 4, noon) // full after 4 s
			}
		}
		now := noon
		for range 10 {
			now = now.Add(time.Second)
			for i := range keys {
				if i != idle {
					l.Allow(strconv.Itoa(i), 1, 4, now)
				}
			}
		}
		// The only idle one gives its place, the second newcomer shares.
		wantTaken(t, l, "first", 1, 4, now, 4)
		wantTaken(t, l, "second", 1, 4, now, 4)
		wantTaken(t, l, "third", 1, 4, now, 0)
		for i := range keys {
			if i != idle {
				wantTaken(t, l, strconv.Itoa(i), 1, 4, now, 0)
			}
		}
		if l.Len() != keys {
			t.Errorf("%d buckets, want %d", l.Len(), keys)
		}
	}
}

func TestAllow_AFasterLimitMakesRoomSooner(t *testing.T) {
	t.Parallel()
	l := limiter.New(1)
	wantTaken(t, l, "a", 0.001, 2, noon, 2)
	l.Allow("a", 1000, 2, noon)
	wantTaken(t, l, "b", 0.001, 2, noon.Add(time.Second), 2) // in the place of a
	wantTaken(t, l, "c", 0.001, 2, noon.Add(time.Second), 2) // shared
	wantTaken(t, l, "d", 0.001, 2, noon.Add(time.Second), 0) // shared
}

func TestAllow_ConcurrentCallsPassExactlyBurstTimes(t *testing.T) {
	t.Parallel()
	const burst, workers, keys = 500, 8, 4
	for name, maxKeys := range map[string]int{"own buckets": 10_000, "shared bucket": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := limiter.New(maxKeys)
			var passed atomic.Int64
			var wg sync.WaitGroup
			for range workers {
				wg.Go(func() {
					for i := range burst * keys {
						if l.Allow(strconv.Itoa(i%keys), 0, burst, noon) {
							passed.Add(1)
						}
					}
				})
			}
			wg.Wait()
			want := int64(burst * keys)
			if maxKeys == 0 {
				want = burst
			}
			if passed.Load() != want {
				t.Errorf("%d calls passed, want %d", passed.Load(), want)
			}
		})
	}
}

func TestAllow_ConcurrentFloodStaysBounded(t *testing.T) {
	t.Parallel()
	const maxKeys, workers = 2000, 4
	l := limiter.New(maxKeys)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range 20_000 {
				now := noon.Add(time.Duration(i) * time.Microsecond)
				l.Allow(strconv.Itoa(w)+"/"+strconv.Itoa(i), 1000, 2, now)
				if i%1000 == 0 && l.Len() > maxKeys {
					t.Errorf("%d buckets", l.Len())
				}
			}
		})
	}
	wg.Wait()
	if n := l.Len(); n > maxKeys || n < maxKeys*9/10 {
		t.Errorf("%d buckets, want about %d", n, maxKeys)
	}
}

func TestAllow_LongKeysAreToldApartAndCostNoMore(t *testing.T) {
	t.Parallel()
	l := limiter.New(10)
	long := strings.Repeat("x", 1<<16)
	wantTaken(t, l, long+"a", 0, 2, noon, 2)
	wantTaken(t, l, long+"b", 0, 2, noon, 2)
	wantTaken(t, l, long+"a", 0, 2, noon, 0)
	if l.Len() != 2 {
		t.Errorf("%d buckets", l.Len())
	}
}

func TestAllow_MemoryIsBounded(t *testing.T) {
	const maxKeys, flood, perKey = 1 << 14, 1 << 18, 600
	l := limiter.New(maxKeys)
	long := strings.Repeat("k", 4096)
	before := heapInUse()
	for i := range flood {
		key := strconv.Itoa(i)
		if i%8 == 0 {
			key += long
		}
		l.Allow(key, 0.001, 10, noon)
	}
	grown := heapInUse() - before
	t.Logf("%d keys: %d bytes each", l.Len(), grown/int64(l.Len()))
	if l.Len() > maxKeys || grown > maxKeys*perKey {
		t.Errorf("%d buckets in %d bytes, want at most %d in %d", l.Len(), grown, maxKeys, maxKeys*perKey)
	}
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAllow_WithTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter.New(1)
		wantTaken(t, l, "a", 10, 3, time.Now(), 3)
		time.Sleep(100 * time.Millisecond)
		wantTaken(t, l, "a", 10, 3, time.Now(), 1)
		time.Sleep(time.Second)
		wantTaken(t, l, "a", 10, 3, time.Now(), 3)
	})
}

func BenchmarkAllow(b *testing.B) {
	b.ReportAllocs()
	l, now := limiter.New(1<<16), noon
	for b.Loop() {
		now = now.Add(time.Microsecond)
		l.Allow("192.0.2.1", 1e6, 1000, now)
	}
}

func BenchmarkAllow_Parallel(b *testing.B) {
	b.ReportAllocs()
	l := limiter.New(1 << 16)
	var worker atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		key, now := strconv.FormatInt(worker.Add(1), 10), noon
		for pb.Next() {
			now = now.Add(time.Microsecond)
			l.Allow(key, 1e6, 1000, now)
		}
	})
}

// The cost of a new key must not grow with the number of keys: neither where the
// oldest makes room, nor where none does.
func BenchmarkAllow_NewKeyWhenFull(b *testing.B) {
	for _, maxKeys := range []int{1 << 10, 1 << 16} {
		for name, perSecond := range map[string]float64{"evicts": 1e9, "shares": 1e-9} {
			b.Run(name+"/"+strconv.Itoa(maxKeys), func(b *testing.B) {
				b.ReportAllocs()
				l, now, i := limiter.New(maxKeys), noon, 0
				for ; i < 2*maxKeys; i++ {
					l.Allow(strconv.Itoa(i), perSecond, 2, now)
				}
				for b.Loop() {
					i++
					now = now.Add(time.Microsecond)
					l.Allow(strconv.Itoa(i), perSecond, 2, now)
				}
			})
		}
	}
}

// Keys that come once and never again, as identities do, are not kept until room is needed.
func TestAllow_KeysThatAreNotUsedAnyMoreAreDropped(t *testing.T) {
	t.Parallel()
	for _, maxKeys := range []int{100, 5000} {
		l, now := limiter.New(maxKeys), noon
		wantTaken(t, l, "exhausted", 0.001, 3, now, 3)
		for i := range 4000 {
			now = now.Add(10 * time.Millisecond)
			if !l.Allow("once-"+strconv.Itoa(i), 100, 4, now) { // full again with the next one
				t.Fatalf("key %d is refused", i)
			}
			if n := l.Len(); n > 1+3*16 { // of each shard
				t.Fatalf("room for %d: %d buckets after %d keys", maxKeys, n, i+1)
			}
		}
		wantTaken(t, l, "exhausted", 0.001, 3, now, 0)
	}
}
