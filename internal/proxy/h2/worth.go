package h2

import (
	"time"

	"golang.org/x/net/http2"
)

// How much a server may send that brings nothing. Honest ones are far below: a PING now and
// then, a WINDOW_UPDATE or two for each frame of data, what was under way when a stream ended.
const (
	mostIdle      = 20_000 // frames at once
	idlePerSecond = 500
	explained     = 8    // frames that one with something in it, or one of ours, explains
	dataStep      = 32   // bytes of a frame of data that explain one more
	windowStep    = 256  // bytes of ours for which a server may send one more: some return windows by little
	idleBytes     = 1024 // of a frame, or of a decoded header block, that count as another one

	explainedList = 256 << 10 // bytes of a header list that one request explains at least, also where that is larger than is taken
	lateLists     = 2         // header lists that may still come on a stream that ended before its answer: head and trailer
	mostLate      = 2048      // of them
)

// worth counts the frames of a server that brought nothing against those that did. Its
// connection guards it.
type worth struct {
	list  int64     // bytes of a header list that one request explains; fixed at creation
	idle  int       // frames that nothing explains
	late  int64     // bytes that may still come on streams that ended before their answers
	lists int       // header lists that may, too
	since time.Time // when frames were forgiven last
}

// got counts a frame that was read.
func (w *worth) got(f http2.Frame) {
	w.idle++
	switch h := f.Header(); h.Type {
	case http2.FrameData, http2.FrameHeaders, http2.FrameContinuation: // bounded by windows; fields counts header blocks
	default:
		w.idle += int(h.Length) / idleBytes
	}
}

// fields counts the header list of a block by its size once it is decoded: a byte of a block may stand for a large field.
// What a request explains is free.
func (w *worth) fields(size int64, explained bool) {
	if explained {
		size = max(0, size-w.list)
	}
	w.idle += int(size / idleBytes)
}

// lateFields counts one of a stream that has ended. It is explained where it may have been on its way.
func (w *worth) lateFields(size int64) {
	w.fields(size, w.lists > 0)
	w.lists = max(0, w.lists-1)
}

// earn takes account of a frame that was of use.
func (w *worth) earn() { w.idle = max(0, w.idle-explained-1) }

// earnData takes account of a frame with so much data: one with little in it explains one other.
func (w *worth) earnData(length int) { w.idle = max(0, w.idle-2-min(explained-1, length/dataStep)) }

// sent takes account of a frame of ours with data: whoever reads it returns its window, of the
// stream and of the connection, in as many steps as it likes.
func (w *worth) sent(length int) { w.idle = max(0, w.idle-explained-length/windowStep) }

// spent reports whether there were more frames than anything explains. The clock is looked
// at only where that seems so.
func (w *worth) spent(now func() time.Time) bool {
	if w.idle <= mostIdle {
		return false
	}
	at := now()
	forgiven := at.Sub(w.since).Seconds() * idlePerSecond
	w.since = at
	w.idle = max(0, w.idle-int(min(forgiven, mostIdle)))
	return w.idle > mostIdle
}

// leave notes that a stream ended whose server may not know, and may have sent so much more, and a head and a trailer.
func (w *worth) leave(window int64) {
	w.late = min(w.late+window, connWindow)
	w.lists = min(w.lists+lateLists, mostLate)
	w.idle = max(0, w.idle-explained)
}

// lateData counts data of a stream that has ended, and reports whether it may have been on
// its way.
func (w *worth) lateData(length int64) bool {
	w.late -= length
	return w.late >= 0
}
