package tokenstore

import (
	"sync/atomic"
	"time"
)

// life is what an identity showed of being alive. Its host notes it.
type life struct {
	seen    atomic.Int64 // instant of the last sign
	served  atomic.Int64 // instant of the last answer to a call; zero for never
	calls   atomic.Int32 // that it is making
	conns   atomic.Int32 // that it called over and that are open
	met     atomic.Bool  // there was such a connection
	doubted atomic.Bool
}

// Seen notes a sign of life.
func (i *Identity) Seen() { i.life.seen.Store(int64(i.clock.now())) }

// Served notes that the instance answered a call: a sign of life, and of the side of it
// that others call. It returns when that was, which it looked up.
func (i *Identity) Served() time.Time {
	now := max(1, int64(i.clock.now()))
	i.life.seen.Store(now)
	i.life.served.Store(now)
	return i.clock.time(instant(now))
}

// LastSeen returns the moment of the last sign of life. To obtain an identity or to renew
// it is one.
func (i *Identity) LastSeen() time.Time {
	return i.clock.time(max(instant(i.life.seen.Load()), i.state.Load().issued))
}

// LastServed returns when the instance last answered a call, zero for never.
func (i *Identity) LastServed() time.Time {
	at := i.life.served.Load()
	if at == 0 {
		return time.Time{}
	}
	return i.clock.time(instant(at))
}

// Enter and Leave tell that the instance begins and ends a call, which may be a stream.
// To end one is a sign of life, too.
func (i *Identity) Enter() { i.life.calls.Add(1) }

// Leave is told after Enter.
func (i *Identity) Leave() {
	i.Seen()
	i.life.calls.Add(-1)
}

// Busy tells whether a call of the instance is being served.
func (i *Identity) Busy() bool { return i.life.calls.Load() > 0 }

// Attach and Detach tell that a connection of the instance opened and closed.
func (i *Identity) Attach() {
	i.life.conns.Add(1)
	i.life.met.Store(true)
}

// Met tells whether there was ever a connection of the instance of which the end is told.
func (i *Identity) Met() bool { return i.life.met.Load() }

// Detach is told after Attach.
func (i *Identity) Detach() { i.life.conns.Add(-1) }

// Attached tells whether a connection of the instance is open.
func (i *Identity) Attached() bool { return i.life.conns.Load() > 0 }

// Doubt notes that the instance may be dead, until [Identity.Trust].
func (i *Identity) Doubt() { i.life.doubted.Store(true) }

// Doubted tells whether the instance may be dead.
func (i *Identity) Doubted() bool { return i.life.doubted.Load() }

// Trust ends a doubt, and tells whether there was one.
func (i *Identity) Trust() bool { return i.life.doubted.Load() && i.life.doubted.Swap(false) }
