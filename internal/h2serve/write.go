package h2serve

import (
	"net/http"
	"runtime"
	"slices"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// flushLocked writes what is pending, unless somebody else is at it who takes it along. It lets go
// of mu while it writes. So the caller must be one that may wait for the peer; others use
// flushElsewhereLocked.
func (c *conn) flushLocked() {
	if c.flushing || len(c.out) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	c.gatherLocked()
	for range flushRounds {
		if !c.writeBatchLocked() {
			c.flushing = false
			c.quietLocked()
			return
		}
	}
	c.s.give(job{c: c, write: true})
}

// flushElsewhereLocked has another goroutine write what is pending.
func (c *conn) flushElsewhereLocked() {
	if c.flushing || len(c.out) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	c.s.give(job{c: c, write: true})
}

// flushPromptlyLocked writes what is pending where that waits for nobody, and has another
// goroutine do it where it may. It lets go of mu while it writes.
func (c *conn) flushPromptlyLocked() {
	nc, ok := c.nc.(Prompt)
	if !ok || c.flushing || len(c.out) == 0 || len(c.out) > record || c.err != nil {
		c.flushElsewhereLocked()
		return
	}
	batch := c.out
	c.out, c.flushing = nil, true
	c.mu.Unlock()
	c.writes.Add(1)
	taken, settled, err := nc.Offer(batch)
	c.writes.Add(1)
	if err != nil {
		c.fail(err)
	}
	c.mu.Lock()
	if taken {
		putBatch(batch)
		c.wakeBlockedLocked()
	} else {
		c.out = append(batch, c.out...)
	}
	c.unsettled = taken && !settled
	if c.unsettled || len(c.out) > 0 && c.err == nil {
		c.s.give(job{c: c, write: true})
		return
	}
	c.flushing = false
}

// settleLocked writes what was left when nobody could wait. It lets go of mu while it writes.
func (c *conn) settleLocked() {
	nc, ok := c.nc.(Prompt)
	if !ok || !c.unsettled {
		return
	}
	c.unsettled = false
	c.mu.Unlock()
	c.writes.Add(1)
	err := nc.Settle()
	c.writes.Add(1)
	if err != nil {
		c.fail(err)
	}
	c.mu.Lock()
}

// write writes what others left to be written.
func (c *conn) write() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked()
	c.gatherLocked()
	for c.writeBatchLocked() {
	}
	c.flushing = false
	c.quietLocked()
}

// gatherLocked lets whoever is ready to run add frames of its own to what is written next.
func (c *conn) gatherLocked() {
	if c.running > 1 {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
}

// writeBatchLocked writes what is pending at this moment and reports whether to go on. It lets go
// of mu while it writes.
func (c *conn) writeBatchLocked() bool {
	if len(c.out) == 0 || c.err != nil {
		return false
	}
	batch := c.out
	c.out = nil
	c.mu.Unlock()
	for rest := batch; len(rest) > 0; {
		// The peer may be slow: what it takes of each record is a sign of life.
		piece := rest[:min(len(rest), record)]
		rest = rest[len(piece):]
		c.writes.Add(1)
		_, err := c.nc.Write(piece)
		c.writes.Add(1)
		if err != nil {
			c.fail(err)
			break
		}
	}
	putBatch(batch)
	c.mu.Lock()
	c.wakeBlockedLocked()
	return true
}

// roomLocked has room for n more bytes of frames of calls. Those of the connection are few.
func (c *conn) roomLocked(n int) { c.out = growBatch(c.out, n) }

// roomLeftLocked is how much more of data may be sent now by all streams together.
func (c *conn) roomLeftLocked() int64 { return min(c.window, int64(c.mostPending()-len(c.out))) }

// mostPending is at how many pending bytes senders of data wait: so many that all connections of a peer
// that takes nothing keep no more than a few do, but for a frame on each.
func (c *conn) mostPending() int {
	if c.shared == nil {
		return highWater
	}
	return max(leastFrame, highWater*fullShares/max(fullShares, c.shared.Sharers()))
}

// wakeBlockedLocked has streams look again which waited for something that all of them share, one
// after the other and no more than there is room for: of hundreds that send long answers most would
// wait again at once, and whoever has a short one stood behind all of them.
func (c *conn) wakeBlockedLocked() {
	for _, st := range c.watching {
		st.can.Broadcast()
	}
	clear(c.watching)
	c.watching = c.watching[:0]
	for c.err != nil || int64(c.woken)*leastFrame < c.roomLeftLocked() {
		st := c.nextLocked()
		if st == nil {
			return
		}
		if st.waits && !st.turn {
			st.turn = true
			c.woken++
		}
		st.wakeLocked()
	}
}

// nextLocked takes whose turn it is out of those that wait, nil for none. Short ends of answers come
// first, but who waits with more does not wait for ever.
func (c *conn) nextLocked() *stream {
	list := &c.brief
	switch {
	case len(c.blocked) == 0:
		c.passed = 0
	case len(c.brief) == 0 || c.passed == mostPassed:
		list, c.passed = &c.blocked, 0
	default:
		c.passed++
	}
	if len(*list) == 0 {
		return nil
	}
	st := (*list)[0]
	*list = slices.Delete(*list, 0, 1)
	st.blocked = false
	return st
}

// yieldLocked ends the turn of a stream. What room it left is for the next ones.
func (c *conn) yieldLocked(st *stream) {
	if st.turn {
		st.turn = false
		c.woken--
		c.wakeBlockedLocked()
	}
}

// sendLocked sends data of a stream, and its end if end is set. It waits for the peer's flow
// control. An error is the one that ended the stream.
func (c *conn) sendLocked(st *stream, p []byte, end bool) error {
	defer c.yieldLocked(st)
	for flushed := false; ; {
		if st.err != nil {
			return st.err
		}
		before := len(p)
		p = c.pushLocked(st, p, end)
		switch {
		case len(p) == 0:
			return nil
		case len(p) < before:
			flushed = false
		case !flushed:
			c.flushLocked()
			flushed = true
		case st.window > 0 && c.window > 0, c.lingersLocked(st): // in the first case it waits for the system
			c.awaitLocked(st)
			c.yieldLocked(st)
			st.waits = true
			st.can.Wait()
			flushed, st.waits = false, false
		}
	}
}

// lingersLocked reports whether a stream waits for its peer: one whose handler has returned has nobody else who counts it, and
// needs a place. Where it asks for one, and lets go of mu meanwhile, it is to look again: it has one, or was reset.
func (c *conn) lingersLocked(st *stream) bool {
	if !st.served || st.leave != nil || c.s.cfg.Linger == nil {
		return true
	}
	c.mu.Unlock()
	leave := c.s.cfg.Linger(c.nc)
	c.mu.Lock()
	if st.leave = leave; leave == nil && st.err == nil {
		c.resetLocked(st.id, http2.ErrCodeEnhanceYourCalm, errLingers)
	}
	return false
}

// pushLocked sends as much data of a stream in one frame as the peer takes now, and its end with
// the last of it if end is set. It returns what is left.
func (c *conn) pushLocked(st *stream, p []byte, end bool) (rest []byte) {
	n := int(min(int64(len(p)), int64(c.peer.maxFrame), max(0, st.window), max(0, c.window)))
	most := c.mostPending()
	if st.brief = st.last && len(p) <= leastBatch; st.brief { // it does not wait for long answers
		most *= 2
	}
	if len(c.out) >= most {
		n = 0
	}
	if n == 0 && len(p) > 0 {
		return p
	}
	c.roomLocked(h2frame.HeadLen + n)
	c.out = h2frame.AppendData(c.out, st.id, p[:n], end && n == len(p))
	st.window -= int64(n)
	c.window -= int64(n)
	return p[n:]
}

// awaitLocked has a stream woken when there is room for all of them, if that is what it lacks.
func (c *conn) awaitLocked(st *stream) {
	if st.window <= 0 || st.blocked {
		return
	}
	st.blocked = true
	if st.brief {
		c.brief = append(c.brief, st)
		return
	}
	c.blocked = append(c.blocked, st)
}

// unblockLocked has a stream that has ended wait no more: there may be no room for long, and many more
// that end until then.
func (c *conn) unblockLocked(st *stream) {
	if !st.blocked {
		return
	}
	st.blocked = false
	for _, list := range []*[]*stream{&c.brief, &c.blocked} {
		if i := slices.Index(*list, st); i >= 0 {
			*list = slices.Delete(*list, i, i+1)
		}
	}
}

// sendHeadLocked does what headLocked does once there is room. It waits for no window, and has as much room again as
// data, so that it does not stand behind that. An error is the one that ended the stream.
func (c *conn) sendHeadLocked(st *stream, status string, fields http.Header, end bool, more ...hpack.HeaderField) error {
	for flushed := false; st.err == nil && len(c.out) >= 2*c.mostPending(); flushed = true {
		if !flushed {
			c.flushLocked()
			continue
		}
		if !slices.Contains(c.watching, st) {
			c.watching = append(c.watching, st)
		}
		st.can.Wait()
	}
	if st.err == nil {
		c.headLocked(st, status, fields, end, more...)
	}
	return st.err
}

// headLocked sends a header block of fields. The status is that of a response, empty for a trailer.
func (c *conn) headLocked(st *stream, status string, fields http.Header, end bool, more ...hpack.HeaderField) {
	c.block.Reset()
	if status != "" {
		c.fieldLocked(":status", status)
		st.expects = st.expects && status[0] == '1' // after the final head nothing invites any more
	}
	for name, values := range fields {
		lower, ok := c.lowerLocked(name)
		if !ok {
			continue
		}
		for _, v := range values {
			if httpguts.ValidHeaderFieldValue(v) {
				c.fieldLocked(lower, v)
			}
		}
	}
	for _, f := range more {
		c.fieldLocked(f.Name, f.Value)
	}
	c.roomLocked(h2frame.HeadLen + c.block.Len())
	c.out = h2frame.AppendHeaders(c.out, st.id, c.block.Bytes(), end, c.peer.maxFrame)
}

func (c *conn) fieldLocked(name, value string) {
	_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // writes to memory
}

// ofConnection reports whether a field is one of HTTP/1's connections (RFC 9113, section 8.2.2).
func ofConnection(lower string) bool {
	switch lower {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return true
	default:
		return false
	}
}
