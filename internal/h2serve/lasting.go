package h2serve

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
)

// usualAfter is how much is to be done after a response, as a rule.
const usualAfter = 2

// Owner has a response that outlasts its handler. It ends the response in any case: until then the
// request is being served, and its context says when nobody wants the response any more.
type Owner interface {
	// Begin gives the response to its owner, once, when the handler has returned.
	Begin(l *Lasting)
	// Taken says that the peer took what [Lasting.Send] could not send. It must wait for nothing.
	Taken()
}

// Lasting is a response that outlasts its handler, so that it takes no goroutine while there is
// nothing to send. It is for one goroutine at a time.
type Lasting struct {
	// Fixed at creation, or before the owner has it.
	st    *stream
	owner Owner
	after []func()
	room  [usualAfter]func() // of after, in most cases

	// Guarded by st.c.mu.
	rest    []byte // that the peer did not take yet
	trailer http.Header
	ending  bool // nothing follows rest but the end
	owed    bool // the owner is to be told when rest was taken
	left    bool // the owner has no more to do with it
	leaving bool // somebody does what is to be done after it
}

// Last has the response of a handler outlast it. The handler has sent the head, and what it does with
// the response from then on has no effect. Last reports false where no [Server] serves, where the
// head was not sent or says how long the response is, and where the response is over.
func Last(w http.ResponseWriter, owner Owner) bool {
	own := responseOf(w)
	if own == nil || !own.sent || own.over || own.bodiless || own.declared >= 0 {
		return false
	}
	own.release()
	st := own.st
	st.c.s.tasks.Add(1) // beside the handler's own
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.lasting = &st.outlasts
	*st.lasting = Lasting{st: st, owner: owner}
	st.lasting.after = st.lasting.room[:0]
	return true
}

// CanLast reports whether a [Server] serves a response, so that it can outlast its handler.
func CanLast(w http.ResponseWriter) bool { return responseOf(w) != nil }

// LastingOf returns what became of a response, nil where it ends with its handler. It is for the
// handler.
func LastingOf(w http.ResponseWriter) *Lasting {
	if own := responseOf(w); own != nil {
		return own.st.lasting
	}
	return nil
}

// responseOf returns the response that others are wrapped around, nil for another server's.
func responseOf(w http.ResponseWriter) *response {
	for {
		switch x := w.(type) {
		case *response:
			return x
		case interface{ Unwrap() http.ResponseWriter }:
			w = x.Unwrap()
		default:
			return nil
		}
	}
}

// After has f called at the end of the response, as a handler that waits defers it: what was
// asked for first comes first. It is for the handler.
func (l *Lasting) After(f func()) { l.after = append(l.after, f) }

// Send sends p, which nobody may change any more, without waiting for the peer. It reports false
// where the peer does not take all of it yet: then nothing may be sent until it has, of which the
// owner is told. What nobody wants any more is dropped.
func (l *Lasting) Send(p []byte) bool {
	c := l.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	l.rest = p
	l.pushLocked()
	l.owed = len(l.rest) > 0
	took := !l.owed
	c.flushPromptlyLocked()
	return took
}

// End ends the response with p and the trailer that is among the fields of header, with
// [http.TrailerPrefix]. It waits for nothing: what was not taken yet comes first. The owner has no
// more to do with the response.
func (l *Lasting) End(p []byte, header http.Header) {
	c := l.st.c
	l.st.response.header = header
	trailer := l.st.response.trailer()
	c.mu.Lock()
	l.rest = append(slices.Clip(l.rest), p...) // what was sent is shared
	l.trailer, l.ending, l.owed = trailer, true, false
	l.pushLocked()
	c.flushElsewhereLocked()
	l.left = true
	leaves := l.leavesLocked()
	c.mu.Unlock()
	if leaves {
		l.leave()
	}
}

// pushLocked has what the peer takes of the rest be written next, and the end after it.
func (l *Lasting) pushLocked() {
	st, c := l.st, l.st.c
	for st.err == nil {
		last, before := l.ending && l.trailer == nil, len(l.rest)
		if before > 0 || last {
			l.rest = c.pushLocked(st, l.rest, last)
		}
		switch {
		case len(l.rest) == 0:
			l.rest = nil
			l.endLocked()
			return
		case len(l.rest) == before:
			c.awaitLocked(st)
			return
		}
	}
	l.rest = nil
}

// endLocked ends the response, if it is to end, when all of it was sent.
func (l *Lasting) endLocked() {
	st, c := l.st, l.st.c
	if !l.ending {
		return
	}
	if l.trailer != nil {
		c.headLocked(st, "", l.trailer, true)
	}
	if !st.remote {
		c.halfCloseLocked(st.id)
	}
	st.readErr, st.err = http.ErrBodyReadAfterClose, http.ErrBodyReadAfterClose
	st.closeLocked() // its context ends after what is to be done
}

// goOnLocked goes on when the peer takes more, or the stream has ended.
func (l *Lasting) goOnLocked() {
	c := l.st.c
	if l.st.closed {
		if l.rest = nil; l.leavesLocked() {
			c.s.give(job{c: c, st: l.st, leave: true})
		}
		return
	}
	if len(l.rest) == 0 {
		return
	}
	l.pushLocked()
	c.flushElsewhereLocked()
	if l.owed && len(l.rest) == 0 {
		l.owed = false
		l.owner.Taken()
	}
}

// leavesLocked reports, once, that everything has ended.
func (l *Lasting) leavesLocked() bool {
	leaves := l.left && l.st.closed && !l.leaving
	l.leaving = l.leaving || leaves
	return leaves
}

// leave does what is to be done after the response.
func (l *Lasting) leave() {
	defer l.st.c.s.tasks.Done()
	for _, f := range l.after {
		l.guard(f)
	}
	l.st.ctx.End(nil)
	l.st.done()
}

// guard calls a function of the handler's, whose panic harms no other.
func (l *Lasting) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			c := l.st.c
			c.s.cfg.Log.Debug(fmt.Sprintf("http: panic serving %s: %v\n%s", c.remote, p, debug.Stack()))
		}
	}()
	f()
}
