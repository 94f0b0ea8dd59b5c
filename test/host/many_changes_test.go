package host_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// However many change the policy at once, each change is made, though HandshakeAuth.Secret takes a while for each.
func TestSetPolicy_ManyAtOnceWithASecret(t *testing.T) {
	t.Parallel()
	const many, seats = 200, 64
	secret := connectplugin.Secret("0123456789abcdef0123456789abcdef")
	var slow atomic.Bool
	asked, release := make(chan struct{}, many), make(chan struct{})
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.HandshakeAuth.Secret = func(string) connectplugin.Secret {
			if slow.Load() {
				asked <- struct{}{}
				<-release
			}
			return secret
		}
	})
	h.Enrol(t, "all", func(c *connectplugin.ClientConfig) { c.Secret = secret })
	slow.Store(true)
	var changes sync.WaitGroup
	var failed atomic.Pointer[string]
	for range many {
		changes.Go(func() {
			if err := h.SetPolicy(hosttest.EveryRight()); err != nil {
				said := err.Error()
				failed.Store(&said)
			}
		})
	}
	for range seats {
		hosttest.Arrival(t, asked)
	}
	time.AfterFunc(hosttest.Moment, func() { close(release) }) // by then the others have come, too
	changes.Wait()
	if said := failed.Load(); said != nil {
		t.Errorf("SetPolicy: %s", *said)
	}
	if n := h.Usage().Identities; n != 1 {
		t.Errorf("%d identities, want the one of before", n)
	}
}

// A HandshakeAuth.Secret that has another goroutine change the policy, and waits for that, is told so in seconds; afterwards the
// policy can be changed.
func TestSetPolicy_CalledBySecretElsewhere(t *testing.T) {
	t.Parallel()
	secret := connectplugin.Secret("0123456789abcdef0123456789abcdef")
	var host atomic.Pointer[hosttest.Host]
	var mu sync.Mutex
	told := map[string]int{}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.HandshakeAuth.Secret = func(string) connectplugin.Secret {
			if h := host.Load(); h != nil {
				over := make(chan error)
				go func() { over <- h.SetPolicy(hosttest.EveryRight()) }()
				err := <-over
				mu.Lock()
				defer mu.Unlock()
				told[fmt.Sprint(err)]++
			}
			return secret
		}
	})
	for range 2 {
		h.Enrol(t, "all", func(c *connectplugin.ClientConfig) { c.Secret = secret })
	}
	host.Store(h)
	if err := h.SetPolicy(hosttest.EveryRight()); err != nil {
		t.Errorf("SetPolicy: %v", err)
	}
	host.Store(nil)
	mu.Lock()
	defer mu.Unlock()
	n := 0
	for said, times := range told {
		if strings.Contains(said, "must not call SetPolicy itself") {
			n += times
		}
	}
	if n == 0 {
		t.Errorf("nobody was told: %v", told)
	}
	if err := h.SetPolicy(hosttest.EveryRight()); err != nil || h.Usage().Identities != 2 {
		t.Errorf("SetPolicy afterwards: %v, %d identities", err, h.Usage().Identities)
	}
}
