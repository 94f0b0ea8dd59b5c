package auditlog

import (
	"fmt"
	"time"
)

// Behind says that events are dropped for want of room in the buffer, or that the writer stands still.
type Behind struct {
	// Dropped is how many were since it was said last.
	Dropped uint64
	// At is what the writer waits for, and For since when; empty where it only has too much to write.
	At  string
	For time.Duration
}

// tellEvery is how often it is said at most, and how long the writer may be at one thing.
const tellEvery = time.Minute

// What a writer may wait for.
const (
	atFile       = "the file, or Logger"
	atCheckpoint = "AuditSinkConfig.OnCheckpoint"
)

// step is what the writer is at.
type step struct {
	what  string
	since time.Time
}

// at notes what the writer is at, empty for nothing.
func (w *Writer) at(what string) {
	if what == "" {
		w.doing.Store(nil)
		return
	}
	w.doing.Store(&step{what, time.Now()})
}

// overflowed counts an event for which there is no room.
func (w *Writer) overflowed() {
	w.dropped.Add(1)
	w.lost.Add(1)
	w.overflow.Add(1)
	select {
	case w.full <- struct{}{}:
	default:
	}
}

// watch says what the writer cannot say that does not get on.
func (w *Writer) watch() {
	defer close(w.watched)
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	var last time.Time
	var told uint64
	for {
		select {
		case <-w.full:
			if !last.IsZero() && time.Since(last) < tellEvery {
				continue // the next tick says it
			}
		case <-tick.C:
		case <-w.done:
			return
		}
		b := Behind{Dropped: w.overflow.Load() - told}
		if s := w.doing.Load(); s != nil {
			b.At, b.For = s.what, time.Since(s.since)
		}
		if b.Dropped == 0 && b.For < tellEvery {
			continue
		}
		told, last = told+b.Dropped, time.Now()
		tick.Reset(tellEvery)
		w.behind.Store(true)
		if w.cfg.OnBehind != nil {
			w.cfg.OnBehind(b)
		}
	}
}

// Reason says why.
func (b Behind) Reason() string {
	if b.At == "" || b.For < time.Second {
		return "more events came than it writes"
	}
	return fmt.Sprintf("it has been waiting for %s for %s", b.At, b.For.Round(time.Millisecond))
}
