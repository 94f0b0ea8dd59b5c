package edge

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// ErrNotAccepted says that the system gave no connection to accept, though newcomers may wait.
var ErrNotAccepted = errors.New("no connection can be accepted for now")

// How long nothing is accepted where nothing can be, and where somebody made room.
const (
	acceptPause = 50 * time.Millisecond
	roomPause   = time.Millisecond
)

// Passes reports that no connection could be accepted at the moment, as when there are no
// descriptors left. Beside what net/http goes by, which would ask a closed listener again, these are what accept(2) says of
// memory and of the one connection that it would have given.
func Passes(err error) bool {
	passing, ok := errors.AsType[net.Error](err)
	return ok && (passing.Timeout() || passing.Temporary()) || fleeting(err) //nolint:staticcheck // nothing else says it
}

// endure does what is to be done where no connection could be accepted: it says so, and waits a moment. Where
// the system has no descriptors left a connection makes room, as it does where there are MaxConnections.
func (l *Listener) endure(err error) {
	l.tell(nil, fmt.Errorf("%w: %w", ErrNotAccepted, err))
	pause := acceptPause
	if NoDescriptors(err) && l.giveUpOne() {
		pause = roomPause
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.life.Done():
	}
}

// giveUpOne closes a connection that makes room, and reports whether there is one.
func (l *Listener) giveUpOne() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	victim := l.dispensableLocked()
	if victim == nil {
		return false
	}
	l.displaceLocked(victim)
	return true
}
