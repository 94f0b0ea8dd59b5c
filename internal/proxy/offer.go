package proxy

// roomChanged has the calls that wait look again.
func (p *Provider) roomChanged() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakeAllLocked()
}

// roomFreed has whoever may have it look at the room that there is.
func (p *Provider) roomFreed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offerLocked()
}

func (p *Provider) wakeAllLocked() {
	for p.lines.waiting.wake(anybody) {
	}
}

// offerReserveLocked wakes the host's own calls: there may be room on the connection that is kept
// for the urgent ones.
func (p *Provider) offerReserveLocked() {
	for p.lines.waiting.wake(isHost) {
	}
}

// offerLocked wakes as many of those who wait, and may have one, as there are streams: one too many
// could come before whoever's turn it is. One looks where there is only a worn connection, which
// it may replace, or wait until it may.
func (p *Provider) offerLocked() {
	l := &p.lines
	if len(l.waiting.turns) == 0 {
		return
	}
	room, worn := int64(0), int64(0)
	for _, conn := range l.conns {
		if conn.Usable() {
			room += conn.Room()
		}
		if conn.Worn() {
			worn = 1
		}
	}
	room = max(room, worn)
	for int64(l.waiting.awake) < room {
		if !l.waiting.wake(p.mayLocked) {
			return
		}
	}
}
