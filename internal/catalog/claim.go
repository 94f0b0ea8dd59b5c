package catalog

import (
	"errors"
	"fmt"
	"slices"
)

// ErrTaken says that an endpoint belongs to another. The error names its self id.
var ErrTaken = errors.New("catalog: endpoint belongs to another")

// Claim says where a runtime is reached.
type Claim struct {
	// RuntimeID is reached there, SelfID is what kind of plugin it is.
	RuntimeID, SelfID string
	// Proof stands for what the runtime proved when it enrolled; it is no secret. Two runtimes
	// of one self id are lives of one plugin where it is the same.
	Proof string
	// Endpoint is a base URL. Its host and port are what belongs to somebody.
	Endpoint string
	// ByHost says that the host's operator named the endpoint, not the runtime itself.
	// Then nobody keeps the runtime from it.
	ByHost bool
	// Proven says that the runtime just showed that it answers there, so that others who
	// named the endpoint themselves do not any more.
	Proven bool
	// Beside says that nobody came: the host's operator says anew where runtimes are that are there
	// already. Then others of the same self id and proof keep the endpoint, too.
	Beside bool
}

// Vacated are the runtimes that had an endpoint and have it no more.
type Vacated struct {
	// Replaced are earlier runtimes of the same self id and proof: a process is one provider. A
	// runtime that claims what it has replaces none.
	Replaced []string
	// Ousted are runtimes of others that had named the endpoint themselves and do not answer
	// there, or have to give way to the host.
	Ousted []string
}

// ClaimEndpoint gives an endpoint to a runtime until [Catalog.RemoveRuntime],
// [Catalog.SetEndpoint] or the next claim of that runtime. An endpoint belongs to the
// self id and proof that have it first, however its host and port are spelled: the claim
// of another is refused with [ErrTaken] and told to the observer. What the host says
// goes before what a runtime says of itself. Those who lose it have no endpoint any
// more; what becomes of them is the caller's to decide.
//
// Fails with [ErrInvalid] or [ErrTaken], and has changed nothing then.
func (c *Catalog) ClaimEndpoint(claim Claim) (Vacated, error) {
	site, err := ParseSite(claim.Endpoint)
	if err != nil {
		return Vacated{}, err
	}

	var vacated Vacated

	err = c.transition(func(t *transition) error {
		next := &tenant{
			runtimeID: claim.RuntimeID, selfID: claim.SelfID, proof: claim.Proof,
			site: site, byHost: claim.ByHost, proven: claim.Proven, beside: claim.Beside,
		}
		if owner := c.ledger.owner(next); owner != nil && !claim.ByHost {
			t.changes = append(t.changes, Change{
				Kind: ChangeEndpointConflict, RuntimeID: claim.RuntimeID, SelfID: claim.SelfID, Owner: owner.selfID,
			})

			return fmt.Errorf("%w: %q", ErrTaken, owner.selfID)
		}

		for _, gone := range c.ledger.settle(next) {
			rt := c.runtimeLocked(gone.runtimeID)
			rt.endpoint, rt.hasEndpoint = "", false
			t.touchRuntime(rt)

			if gone.same(next) {
				vacated.Replaced = append(vacated.Replaced, gone.runtimeID)
			} else {
				vacated.Ousted = append(vacated.Ousted, gone.runtimeID)
			}
		}

		rt := c.runtimeLocked(claim.RuntimeID)
		rt.endpoint, rt.hasEndpoint = claim.Endpoint, true

		return nil
	})

	return vacated, err
}

// Owner returns the self id that keeps a claim from its endpoint, unless the host makes it
// or it is proven.
func (c *Catalog) Owner(claim Claim) (selfID string, taken bool) {
	site, err := ParseSite(claim.Endpoint)
	if err != nil {
		return "", false
	}

	c.mu.RLock()
	defer c.mu.RUnlock()

	owner := c.ledger.owner(&tenant{runtimeID: claim.RuntimeID, selfID: claim.SelfID, proof: claim.Proof, site: site})
	if owner == nil {
		return "", false
	}

	return owner.selfID, true
}

// NamedItself reports whether a runtime has an endpoint that it named itself.
func (c *Catalog) NamedItself(runtimeID string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()

	t := c.ledger.of[runtimeID]

	return t != nil && !t.byHost
}

// Shares reports whether another of the same self id is reached where a runtime is.
func (c *Catalog) Shares(runtimeID string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()

	t := c.ledger.of[runtimeID]

	return t != nil && slices.ContainsFunc(c.ledger.at[t.site], func(other *tenant) bool { return other != t && other.selfID == t.selfID })
}

// Taken reports whether an endpoint belongs to another self id than the given one. It
// is true for what is no endpoint.
func (c *Catalog) Taken(endpoint, selfID string) bool {
	site, err := ParseSite(endpoint)
	if err != nil {
		return true
	}

	c.mu.RLock()
	defer c.mu.RUnlock()

	for _, other := range c.ledger.at[site] {
		if other.selfID != selfID {
			return true
		}
	}

	return false
}
