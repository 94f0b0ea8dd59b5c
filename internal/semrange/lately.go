package semrange

import "sync"

// mostLately bounds how many constraints are kept that were read: twice as many.
const mostLately = 256

// lately are the constraints that were asked for lately, whoever did.
var lately constraints //nolint:gochecknoglobals // the same for everybody

// constraints keeps what was asked for lately, by text: the newer half, and the half before it. Whatever is asked for
// again stays. The zero value is empty. It is safe for concurrent use.
type constraints struct {
	mu         sync.Mutex
	newer, old map[string]Constraint
}

func (k *constraints) get(s string) (Constraint, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()

	if c, ok := k.newer[s]; ok {
		return c, true
	}

	c, ok := k.old[s]
	if ok {
		k.keepLocked(c)
	}

	return c, ok
}

func (k *constraints) keep(c Constraint) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keepLocked(c)
}

func (k *constraints) keepLocked(c Constraint) {
	if k.newer == nil || len(k.newer) >= mostLately {
		k.newer, k.old = make(map[string]Constraint), k.newer
	}

	k.newer[c.raw] = c
}
