// Package crowd bounds how many may be at something at a time, without that those who dawdle
// keep others from it: a newcomer takes the place of whoever has been there for longest.
package crowd

import (
	"container/list"
	"sync"

	"github.com/masegraye/connect-plugin-go/internal/fullest"
)

// Crowd is a bounded number of members, each of some key and some size. Make it with [New]; it is safe for
// concurrent use.
type Crowd struct {
	mu             sync.Mutex
	most, mostEach int
	all            share
	of             map[string]*share // the same by key
}

// share is members, the oldest first, and how many they count as together.
type share struct {
	list.List // of *member

	size int
}

type member struct {
	key      string
	size     int
	displace func(inAll bool)
	here     bool
	inAll    *list.Element
	inKey    *list.Element
}

// New returns a crowd of at most so many members, and so many of one key.
func New(most, mostEach int) *Crowd {
	return &Crowd{most: most, mostEach: mostEach, of: make(map[string]*share)}
}

// Resize changes how many there may be. Those who are there stay.
func (c *Crowd) Resize(most, mostEach int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most, c.mostEach = most, mostEach
}

// Enter adds a member that counts as so many. Where there is no room for it, displace of those
// that came first among those of the key, or of all, is called, once, before Enter returns, and told which. The
// member leaves with leave, which reports whether it was still there; later calls do nothing.
func (c *Crowd) Enter(key string, size int, displace func(inAll bool)) (leave func() bool) {
	m := &member{key: key, size: max(size, 1), displace: displace, here: true}
	c.mu.Lock()
	var gone []*member
	for mine := c.of[key]; mine != nil && mine.size > 0 && mine.size+m.size > c.mostEach; {
		gone = append(gone, c.firstLocked(mine))
	}
	ofKey := len(gone)
	for c.all.size > 0 && c.all.size+m.size > c.most {
		gone = append(gone, c.firstLocked(&c.all))
	}
	if c.of[key] == nil {
		c.of[key] = new(share)
	}
	m.inAll, m.inKey = c.all.add(m), c.of[key].add(m)
	c.mu.Unlock()
	for i, g := range gone {
		g.displace(i >= ofKey)
	}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.removeLocked(m)
	}
}

// Len returns how many there are, each as what it counts.
func (c *Crowd) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.size
}

// Fullest returns which key has most members, and how many.
func (c *Crowd) Fullest() (key string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fullest.Of(c.of, func(s *share) int { return s.size })
}

// firstLocked takes out the first of a list, which is not empty.
func (c *Crowd) firstLocked(of *share) *member {
	m, _ := of.Front().Value.(*member)
	c.removeLocked(m)
	return m
}

func (c *Crowd) removeLocked(m *member) bool {
	if !m.here {
		return false
	}
	m.here = false
	c.all.remove(m, m.inAll)
	mine := c.of[m.key]
	if mine.remove(m, m.inKey); mine.size == 0 {
		delete(c.of, m.key)
	}
	return true
}

func (s *share) add(m *member) *list.Element {
	s.size += m.size
	return s.PushBack(m)
}

func (s *share) remove(m *member, at *list.Element) {
	s.size -= m.size
	s.Remove(at)
}
