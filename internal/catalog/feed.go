package catalog

import (
	scheduler "runtime" // a runtime is something else here
	"sync"
)

// wakeBatch is how many watchers are woken at a time: before the feed's lock is given up
// for a moment and, of a crowd, before everybody else who is ready to run has a turn. More
// of them are a crowd.
const wakeBatch = 16

// feed is the numbered events of a type and those who watch them.
type feed struct {
	// Fixed when it is made.
	name, epoch string
	limit       int

	// Whoever reads, wakes or is woken shares the lock, so that watchers who wake all at
	// once do not queue up.
	mu       sync.RWMutex
	sequence uint64
	ring     []happening // number n is at (n-1) % limit
	watchers []*Watcher

	summoning, again bool // somebody wakes the watchers, and has to once more
}

// happening is an event as the ring keeps it.
type happening struct {
	state    State
	provider *Registration
}

func newFeed(name, epoch string, limit int) *feed {
	return &feed{name: name, epoch: epoch, limit: limit}
}

// at returns the event of a number that is in the ring; number 0 is what was
// before the first.
func (f *feed) at(sequence uint64) happening {
	if sequence == 0 {
		return happening{}
	}

	return f.ring[(sequence-1)%uint64(f.limit)] //nolint:gosec // a limit is positive
}

// publish appends an event if the state or the provider is another than before,
// or if changed says that watchers must see it anyway.
func (f *feed) publish(state State, provider *Registration, changed bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()

	now := happening{state: state, provider: provider}
	if !changed && now == f.at(f.sequence) {
		return false
	}

	if len(f.ring) < f.limit {
		f.ring = append(f.ring, now)
	} else {
		f.ring[f.sequence%uint64(f.limit)] = now //nolint:gosec // a limit is positive
	}

	f.sequence++

	return true
}

// forget gives back the metadata of a registration that is gone: only what is
// registered may take much room, however often it comes and goes.
func (f *feed) forget(reg *Registration) {
	if len(reg.Metadata) == 0 {
		return
	}

	slim := *reg
	slim.Metadata = nil

	f.mu.Lock()
	defer f.mu.Unlock()

	for i := range f.ring {
		if f.ring[i].provider == reg {
			f.ring[i].provider = &slim
		}
	}
}

// wakeAll wakes every watcher, and calls between after each batch. It goes from the last to
// the first and gives up the lock between batches; a watcher that leaves meanwhile is
// replaced by the last one, so that nobody is left out.
func (f *feed) wakeAll(between func()) {
	for next := -1; next != 0; {
		f.mu.RLock()

		if next < 0 || next > len(f.watchers) {
			next = len(f.watchers)
		}

		for range min(next, wakeBatch) {
			next--
			f.watchers[next].signal()
		}

		f.mu.RUnlock()

		if next > 0 {
			between()
		}
	}
}

// crowd reports whether the watchers are a crowd, and whether somebody is to be found who
// summons it: whoever does so already does it once more.
func (f *feed) crowd() (crowd, summons bool) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if len(f.watchers) <= wakeBatch {
		return false, false
	}

	f.again = f.summoning
	summons = !f.summoning
	f.summoning = true

	return true, summons
}

// summon wakes a crowd, as long as there is news for it.
func (f *feed) summon() {
	for summoning := true; summoning; {
		f.wakeAll(scheduler.Gosched)

		f.mu.Lock()
		f.summoning, f.again = f.again, false
		summoning = f.summoning
		f.mu.Unlock()
	}
}

// take returns the next event of a watcher, if there is one. Its place in the
// events belongs to the one goroutine that reads.
func (f *feed) take(w *Watcher) (Event, bool, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()

	switch {
	case w.ended:
		return Event{}, false, ErrClosed
	case w.fresh:
		w.fresh = false
		w.cursor = f.sequence

		return f.event(f.sequence, w.resync, 0), true, nil
	case w.cursor == f.sequence:
		return Event{}, false, nil
	}

	w.cursor++

	if skips := w.latest && w.cursor < f.sequence; !skips && f.sequence-w.cursor < uint64(len(f.ring)) {
		return f.event(w.cursor, false, 0), true, nil
	}

	missed := f.sequence - w.cursor
	w.cursor = f.sequence

	return f.event(f.sequence, true, missed), true, nil
}

// hasNews reports whether there is something for a watcher to take.
func (f *feed) hasNews(w *Watcher) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()

	return w.ended || w.fresh || w.cursor != f.sequence
}

func (f *feed) event(sequence uint64, resync bool, missed uint64) Event {
	at := f.at(sequence)
	event := Event{
		Type: f.name, State: at.state, Sequence: sequence, Epoch: f.epoch,
		Resync: resync, Missed: missed,
	}

	if at.provider != nil {
		event.Provider = *at.provider
	}

	return event
}

// open adds a watcher at the place that the request asks for.
func (f *feed) open(w *Watcher, req WatchRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()

	returning := req.Epoch != "" || req.ResumeAfter != 0
	known := req.Epoch == f.epoch && req.ResumeAfter <= f.sequence

	w.cursor = req.ResumeAfter
	w.fresh = !known
	w.resync = returning && !known
	w.place = len(f.watchers)
	f.watchers = append(f.watchers, w)
}

// close takes a watcher out and wakes it.
func (f *feed) close(w *Watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()

	last := len(f.watchers) - 1
	moved := f.watchers[last]
	f.watchers[w.place], moved.place = moved, w.place
	f.watchers[last] = nil
	f.watchers = f.watchers[:last]
	w.ended = true
	w.signal()
}

// appendWatchers appends those who watch now.
func (f *feed) appendWatchers(to []*Watcher) []*Watcher {
	f.mu.RLock()
	defer f.mu.RUnlock()

	return append(to, f.watchers...)
}

func (f *feed) watched() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()

	return len(f.watchers) > 0
}

func (f *feed) eventful() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()

	return f.sequence > 0
}
