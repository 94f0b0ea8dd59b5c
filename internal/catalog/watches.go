package catalog

import "slices"

// CloseWatches ends every watch and takes no new ones; it is for a host that
// shuts down.
func (c *Catalog) CloseWatches() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()

	c.EndWatches(func(string, string) bool { return true })
	c.summoning.Wait()
}

// EndWatches ends the watches that match says, and returns how many; it is how a
// change of policy withdraws what it no longer allows. match runs outside the
// locks.
func (c *Catalog) EndWatches(match func(serviceType, runtimeID string) bool) int {
	doomed := slices.DeleteFunc(c.openWatches(), func(w *Watcher) bool {
		return !match(w.service.name, w.runtimeID())
	})

	ended := 0

	_ = c.transition(func(t *transition) error {
		for _, w := range doomed {
			if !w.closed {
				ended++
				t.end(w)
			}
		}

		return nil
	})

	return ended
}

func (c *Catalog) openWatches() []*Watcher {
	c.mu.RLock()
	defer c.mu.RUnlock()

	open := make([]*Watcher, 0, c.watches)
	for _, s := range c.services {
		open = s.feed.appendWatchers(open)
	}

	return open
}

// Watches returns how many watches are open.
func (c *Catalog) Watches() int {
	c.mu.RLock()
	defer c.mu.RUnlock()

	return c.watches
}

// Slow returns how many times a watcher fell behind so far that it had to be
// brought up to date instead of being told each event.
func (c *Catalog) Slow() uint64 { return c.slow.Load() }

// end closes a watcher; closing it again does nothing.
func (t *transition) end(w *Watcher) {
	if w.closed {
		return
	}

	w.closed = true
	t.c.watches--
	w.fleet.watched(-1)
	w.service.feed.close(w)
	t.touch(w.service, false)

	if rt := w.runtime; rt != nil {
		last := len(rt.watchers) - 1
		moved := rt.watchers[last]
		rt.watchers[w.placeInRuntime], moved.placeInRuntime = moved, w.placeInRuntime
		rt.watchers[last] = nil
		rt.watchers = rt.watchers[:last]
		t.touchRuntime(rt)
	}
}

// Watching is an open watch: of what, and by whom.
type Watching struct{ Type, RuntimeID string }

// EachWatch calls f for every open watch until it returns false. It holds no lock meanwhile.
func (c *Catalog) EachWatch(f func(Watching) bool) {
	for _, w := range c.openWatches() {
		if !f(Watching{Type: w.service.name, RuntimeID: w.runtimeID()}) {
			return
		}
	}
}
