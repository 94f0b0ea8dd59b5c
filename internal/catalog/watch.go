package catalog

import "context"

// WatchRequest asks for the events of a type.
type WatchRequest struct {
	Type string
	// RuntimeID is who watches; empty is the host itself.
	RuntimeID string
	// Fleet is what it holds the watch with; nil is for one that shares with nobody.
	Fleet *Fleet
	// ResumeAfter and Epoch are those of the last event that the consumer has seen, zero
	// for a new consumer.
	ResumeAfter uint64
	Epoch       string
	// Told is told whenever [Watcher.Take] may have something; nil is for a consumer that
	// waits in [Watcher.Next].
	Told Told
	// In is the place of the watcher, which is zero; nil has one made.
	In *Watcher
}

// Told is a consumer that does not wait. News is called with locks held, also before Watch
// returns: it must wait for nothing, and call nothing of the catalogue.
type Told interface{ News() }

// Event is the state of a type after one change.
type Event struct {
	Type  string
	State State
	// Provider is whom a consumer should use; zero if nobody. Its Metadata is shared and
	// must not be changed. In an event that a later one has overtaken, the Metadata of a
	// registration that is gone is missing.
	Provider Registration
	// Sequence numbers the events of the type within an epoch without gaps. It is 0 for a
	// type that had none yet.
	Sequence uint64
	Epoch    string
	// Resync says that this is the current state and not the event after the last one that
	// the watcher saw. Missed is how many events in between are lost, so that Sequence is
	// the last one seen plus Missed plus one. After a change of epoch, where nobody can
	// know, Missed is 0.
	Resync bool
	Missed uint64
}

// Watcher is one consumer's place in the events of a type. It keeps nothing but
// that place, however slow the consumer is.
type Watcher struct {
	// Fixed when it is made.
	catalog *Catalog
	service *service
	runtime *runtime      // nil for the host
	fleet   *Fleet        // nil for none
	told    Told          // nil for who waits
	wake    chan struct{} // nil for who is told

	// Of the goroutine that calls Next or Take.
	cursor        uint64 // the last event that was taken
	fresh, resync bool
	latest        bool // the next event is the last that there is

	// Guarded by the feed's lock.
	ended bool
	place int // in the feed's watchers

	// Guarded by the catalogue's lock.
	closed         bool
	placeInRuntime int
}

// Watch opens a watch. Its first event is the current state, unless the request
// resumes: then it is the first one that was missed, and there is none while
// nothing was. A resumption that is not possible starts with the current state
// and Resync. The caller closes the watcher. Fails with [ErrLimit] or
// [ErrClosed].
func (c *Catalog) Watch(req WatchRequest) (*Watcher, error) {
	w := c.newWatcher(&req)

	err := c.transition(func(t *transition) error {
		if err := c.mayWatch(&req); err != nil {
			return err
		}

		if req.RuntimeID != "" {
			w.runtime = c.runtimeLocked(req.RuntimeID)
			w.placeInRuntime = len(w.runtime.watchers)
			w.runtime.watchers = append(w.runtime.watchers, w)
		}

		w.service = c.serviceLocked(req.Type)
		w.service.feed.open(w, req)
		w.fleet = req.Fleet
		w.fleet.watched(1)
		c.watches++
		t.touch(w.service, false)

		return nil
	})
	if err != nil {
		return nil, err
	}

	return w, nil
}

// mayWatch says whether there is room for a watch.
func (c *Catalog) mayWatch(req *WatchRequest) error {
	cfg, mine := c.cfg.Load(), 0
	if rt := c.runtimes[req.RuntimeID]; rt != nil {
		mine = len(rt.watchers)
	}

	switch {
	case c.closed:
		return ErrClosed
	case exceeds(c.watches+1, cfg.MaxWatches):
		return ErrLimitInAll
	case req.RuntimeID != "" && exceeds(mine+1, cfg.MaxWatchesPerRuntime):
		return ErrLimit
	case !req.Fleet.mayWatch(cfg):
		return ErrLimitOfFleet
	default:
		return nil
	}
}

// newWatcher makes a watcher that waits, or whose consumer is told.
func (c *Catalog) newWatcher(req *WatchRequest) *Watcher {
	w := req.In
	if w == nil {
		w = new(Watcher)
	}

	w.catalog, w.told = c, req.Told
	if req.Told == nil {
		w.wake = make(chan struct{}, 1)
	}

	return w
}

// Next waits for the next event. It is called by one goroutine at a time. A
// watcher that falls behind by more than the ring holds gets one event with
// Resync, the number that it missed and the current state. Fails with
// [ErrClosed] once the watch has ended, for whatever reason, or with the error of
// ctx.
func (w *Watcher) Next(ctx context.Context) (Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Event{}, err
		}

		if event, ok, err := w.Take(); ok || err != nil {
			return event, err
		}

		w.Await(ctx)
	}
}

// Take is Next without waiting. It reports false where there is no event yet. It is called by
// one goroutine at a time.
func (w *Watcher) Take() (Event, bool, error) {
	event, ok, err := w.service.feed.take(w)
	if err != nil || !ok {
		return Event{}, false, err
	}

	if !w.latest {
		w.observe(event)
	}

	w.latest = false

	return event, true, nil
}

// Await returns when Next would not wait any more. It is called by the goroutine that calls
// Next, and uses less of its stack.
func (w *Watcher) Await(ctx context.Context) {
	for !w.service.feed.hasNews(w) && ctx.Err() == nil {
		select {
		case <-w.wake:
		case <-ctx.Done():
		}
	}
}

// Latest has the next call of Next skip to the state as it is then, with Resync and the
// number of events between as those that the watcher asked to miss. It is called by the
// goroutine that calls Next.
func (w *Watcher) Latest() { w.latest = true }

// Close ends the watch; Next then fails with [ErrClosed]. It may be called again
// and from another goroutine than Next, and leaves nothing behind.
func (w *Watcher) Close() {
	_ = w.catalog.transition(func(t *transition) error {
		t.end(w)

		return nil
	})
}

// signal wakes the watcher; one wake-up is enough for any number of events.
func (w *Watcher) signal() {
	if w.told != nil {
		w.told.News()

		return
	}

	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// observe tells that the watcher fell behind.
func (w *Watcher) observe(event Event) {
	if event.Missed == 0 {
		return
	}

	w.catalog.slow.Add(1)

	w.catalog.cfg.Load().Observe(Change{
		Kind: ChangeWatcherBehind, Type: event.Type, RuntimeID: w.runtimeID(), Missed: event.Missed,
	})
}

// runtimeID is who watches, empty for the host.
func (w *Watcher) runtimeID() string {
	if w.runtime == nil {
		return ""
	}

	return w.runtime.id
}
