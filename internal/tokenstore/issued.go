package tokenstore

import (
	"strings"
	"sync"
)

// maxPast is how many tokens that are good no more a store recognises at least.
const maxPast = 1 << 14

// issued are the tokens that a store gave out, by their digests: all that are good, and
// the latest of the others, in two generations. It is safe for concurrent use.
type issued struct {
	mu           sync.RWMutex
	good         map[shortDigest]struct{}
	past, before map[shortDigest]struct{}
}

func newIssued() *issued {
	return &issued{
		good: map[shortDigest]struct{}{}, past: map[shortDigest]struct{}{}, before: map[shortDigest]struct{}{},
	}
}

func (i *issued) add(d shortDigest) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.good[d] = struct{}{}
}

// retire takes note that a token was replaced, or ended with its identity.
func (i *issued) retire(d shortDigest) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.good, d)
	if len(i.past) >= maxPast {
		i.before, i.past = i.past, map[shortDigest]struct{}{}
	}
	i.past[d] = struct{}{}
}

func (i *issued) has(d shortDigest) bool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	_, good := i.good[d]
	_, past := i.past[d]
	_, before := i.before[d]
	return good || past || before
}

// Gave reports whether the store gave a token out, to whomever, as one of an identity. It
// knows all that are good and at least the last 16,384 of the others. It proves nothing
// about who presents it.
func (s *Store) Gave(token string) bool {
	d, wellFormed := digestOf(token)
	return wellFormed && s.issued.has(d.short())
}

// GaveIn reports whether a text, as the value of a header field, begins or ends with such a token, or has one
// between what cannot be part of a token, whatever scheme or name it is written with.
func (s *Store) GaveIn(text string) bool {
	for word := range strings.FieldsFuncSeq(text, isForeign) {
		if n := len(word) - tokenLength; n >= 0 && (s.Gave(word[n:]) || n > 0 && s.Gave(word[:tokenLength])) {
			return true
		}
	}
	return false
}

// isForeign reports whether no token has a letter.
func isForeign(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}
