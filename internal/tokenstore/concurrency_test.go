package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// crowd is a store that many use at once, and what all of them know.
type crowd struct {
	*testing.T
	store               *tokenstore.Store
	issued, told, hooks atomic.Int32
	shared              [4]atomic.Pointer[credentials] // of anybody, for everybody
}

// Everything at once: no bound is exceeded, each end is told once, and nothing is left behind.
func TestOperationsUnderConcurrency(t *testing.T) {
	t.Parallel()
	const goroutines, steps = 6, 1500
	config := modelConfig()
	config.TTL, config.Grace = 3*time.Millisecond, time.Millisecond
	c := &crowd{T: t, store: tokenstore.New(config)}
	c.store.Subscribe(func(tokenstore.End) { c.told.Add(1) })
	ctx, cancel := context.WithCancel(t.Context())
	var running, group sync.WaitGroup
	running.Go(func() { c.store.Run(ctx) })
	for g := range goroutines {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 0))
			for range steps {
				c.step(random)
			}
		})
	}
	group.Wait()
	c.store.RevokeAll(tokenstore.ReasonShutdown)
	cancel()
	running.Wait()
	for _, g := range c.store.Grants("") {
		c.store.RevokeGrant(g.ID)
	}
	c.store.Sweep(time.Now().Add(tokenstore.DefaultGrantTTL))
	if c.issued.Load() < 100 {
		t.Errorf("only %d issued", c.issued.Load())
	}
	wantEqual(t, "told", c.told.Load(), c.issued.Load())
	wantEqual(t, "hooks", c.hooks.Load(), c.issued.Load())
	wantEqual(t, "residue", c.store.Residue(), 0)
}

// step does one thing, with an identity of its own or of somebody else.
func (c *crowd) step(random *rand.Rand) {
	slot := &c.shared[random.IntN(len(c.shared))]
	known := slot.Load()
	choice := random.IntN(8)
	if known == nil || choice == 0 {
		c.issue(random, slot)
		return
	}
	switch choice {
	case 1:
		_, token, err := c.store.Renew(known.runtimeID, known.token, noCertificate)
		if err == nil {
			slot.CompareAndSwap(known, &credentials{runtimeID: known.runtimeID, token: token})
		}
		c.invalidIfAny("renew", err)
	case 2:
		c.revoke(known)
	case 3, 4:
		c.grant(random, known)
	default:
		identity, err := c.store.Verify(known.runtimeID, known.token, noCertificate)
		c.invalidIfAny("verify", err)
		if err == nil {
			wantEqual(c, "verified", identity.RuntimeID(), known.runtimeID)
			identity.SetAttributes(known)
			if _, same := identity.Attributes().(*credentials); !same {
				c.Errorf("attributes %v", identity.Attributes())
			}
			identity.OnEnd(func() {})()
		}
	}
}

func (c *crowd) issue(random *rand.Rand, slot *atomic.Pointer[credentials]) {
	identity, token, err := c.store.Issue(tokenstore.Request{
		SelfID: fmt.Sprint(random.IntN(4)), Peer: fmt.Sprint(random.IntN(3)),
	})
	if n := c.store.Len(); n > modelTotal {
		c.Errorf("%d live", n)
	}
	switch {
	case err == nil:
		c.issued.Add(1)
		identity.OnEnd(func() { c.hooks.Add(1) })
		slot.Store(&credentials{runtimeID: identity.RuntimeID(), token: token})
	case errors.Is(err, tokenstore.ErrFull):
	case errors.Is(err, tokenstore.ErrTooManyInstances):
	case errors.Is(err, tokenstore.ErrTooManyForPeer):
	default:
		c.Errorf("issue: %v", err)
	}
}

func (c *crowd) revoke(known *credentials) {
	c.store.Revoke(known.runtimeID, tokenstore.ReasonRevoked)
	if _, err := c.store.Verify(known.runtimeID, known.token, noCertificate); err == nil {
		c.Error("verified after it was revoked")
	}
}

func (c *crowd) grant(random *rand.Rand, known *credentials) {
	owner, _ := c.store.Lookup(known.runtimeID) // the host if it ended
	ttl := time.Duration(random.IntN(2)) * time.Millisecond
	grant, token, err := c.store.IssueGrant(owner, "logger", "1", ttl)
	if err != nil {
		if !errors.Is(err, tokenstore.ErrEnded) && !errors.Is(err, tokenstore.ErrTooManyGrants) {
			c.Errorf("grant: %v", err)
		}
		return
	}
	_, err = c.store.VerifyGrant(grant.ID, token, noCertificate)
	c.invalidIfAny("verify grant", err)
	if random.IntN(2) == 0 {
		c.store.RevokeGrant(grant.ID)
		_, err = c.store.VerifyGrant(grant.ID, token, noCertificate)
		wantError(c, "verify a revoked grant", err, tokenstore.ErrInvalid)
	}
}

func (c *crowd) invalidIfAny(what string, err error) {
	if err != nil {
		wantError(c, what, err, tokenstore.ErrInvalid)
	}
}
