// Package crowd bounds how many may be at something at a time, without that those who dawdle
// keep others from it: a newcomer takes the place of whoever has been there for longest.
package crowd

import (
	"container/list"
	"sync"

	"github.com/masegraye/connect-plugin-go/internal/fullest"
)

// Crowd is a bounded number of members, each of some key. Make it with [New]; it is safe for
// concurrent use.
type Crowd struct {
	mu             sync.Mutex
	most, mostEach int
	all            list.List             // of *member, the oldest first
	of             map[string]*list.List // the same by key
}

type member struct {
	key      string
	displace func(inAll bool)
	here     bool
	inAll    *list.Element
	inKey    *list.Element
}

// New returns a crowd of at most so many members, and so many of one key.
func New(most, mostEach int) *Crowd {
	return &Crowd{most: most, mostEach: mostEach, of: make(map[string]*list.List)}
}

// Resize changes how many there may be. Those who are there stay.
func (c *Crowd) Resize(most, mostEach int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most, c.mostEach = most, mostEach
}

// Enter adds a member. Where there is no room for it, displace of the one that came first
// among those of the key, or of all, is called, once, before Enter returns, and told which. The member
// leaves with leave, which reports whether it was still there; later calls do nothing.
func (c *Crowd) Enter(key string, displace func(inAll bool)) (leave func() bool) {
	m := &member{key: key, displace: displace, here: true}
	c.mu.Lock()
	var (
		gone  []*member
		inAll bool
	)
	if mine := c.of[key]; mine != nil && mine.Len() >= c.mostEach {
		gone = append(gone, c.firstLocked(mine))
	} else if c.all.Len() >= c.most {
		gone, inAll = append(gone, c.firstLocked(&c.all)), true
	}
	if c.of[key] == nil {
		c.of[key] = list.New()
	}
	m.inAll, m.inKey = c.all.PushBack(m), c.of[key].PushBack(m)
	c.mu.Unlock()
	for _, g := range gone {
		g.displace(inAll)
	}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.removeLocked(m)
	}
}

// Len returns how many there are.
func (c *Crowd) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.Len()
}

// Fullest returns which key has most members, and how many.
func (c *Crowd) Fullest() (key string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fullest.Of(c.of, (*list.List).Len)
}

// firstLocked takes out the first of a list, which is not empty.
func (c *Crowd) firstLocked(l *list.List) *member {
	m, _ := l.Front().Value.(*member)
	c.removeLocked(m)
	return m
}

func (c *Crowd) removeLocked(m *member) bool {
	if !m.here {
		return false
	}
	m.here = false
	c.all.Remove(m.inAll)
	mine := c.of[m.key]
	if mine.Remove(m.inKey); mine.Len() == 0 {
		delete(c.of, m.key)
	}
	return true
}
