package certs

import "sync"

// DefaultMaxKnown is how many certificates a [Known] tells apart.
const DefaultMaxKnown = 100_000

// Known is a set of certificates that only grows: by the identities that they have, and by
// their keys where they have none. One that is full holds every certificate, so that
// nobody gets out of it by filling it. The zero value is empty; it is safe for concurrent
// use.
type Known struct {
	// Max bounds it, and is not changed once it is used. Zero means DefaultMaxKnown.
	Max int

	mu         sync.RWMutex
	identities map[string]struct{}
	keys       map[Pin]struct{}
	full       bool
}

// Add adds the certificates with an identity or, where that is empty, with a key.
func (k *Known) Add(identity string, key Pin) {
	if k.Has(identity, key) {
		return
	}

	k.mu.Lock()
	defer k.mu.Unlock()

	limit := k.Max
	if limit == 0 {
		limit = DefaultMaxKnown
	}

	if len(k.identities)+len(k.keys) >= limit {
		k.full = true

		return
	}

	if k.identities == nil {
		k.identities, k.keys = map[string]struct{}{}, map[Pin]struct{}{}
	}

	if identity == "" {
		k.keys[key] = struct{}{}

		return
	}

	k.identities[identity] = struct{}{}
}

// Has reports whether a certificate with such an identity or such a key is in the set.
func (k *Known) Has(identity string, key Pin) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()

	_, byIdentity := k.identities[identity]
	_, byKey := k.keys[key]

	return k.full || byIdentity || byKey
}
