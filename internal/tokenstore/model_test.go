package tokenstore_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// The model is what the store should do, written without regard to time, memory and concurrency.
const (
	modelTTL       = 100 * time.Second
	modelGrace     = 10 * time.Second
	modelGrantTTL  = 40 * time.Second
	modelTotal     = 12
	modelPerSelf   = 5
	modelPerPeer   = 6
	modelMaxGrants = 3
)

func modelConfig() tokenstore.Config {
	return tokenstore.Config{
		TTL: modelTTL, Grace: modelGrace, MaxTotal: modelTotal, MaxPerSelf: modelPerSelf,
		MaxPerPeer: modelPerPeer, MaxGrantsPerIdentity: modelMaxGrants,
	}
}

type modelIdentity struct {
	issued     *tokenstore.Identity
	self, peer string
	fp         tokenstore.Fingerprint
	ttl        time.Duration
	tokens     []string // all that it ever had, the current one last
	expires    time.Time
	grace      time.Time // until when the one before the last is good
	reason     tokenstore.Reason
	grants     map[*modelGrant]bool
}

type modelGrant struct {
	id, token string
	owner     *modelIdentity // nil: the host
	expires   time.Time
	ended     bool
}

type model struct {
	now        time.Time
	identities []*modelIdentity // also those that ended
	grants     []*modelGrant    // also those that ended
	host       map[*modelGrant]bool
}

func (m *model) find(runtimeID string) *modelIdentity {
	for _, i := range m.identities {
		if i.issued.RuntimeID() == runtimeID && i.reason == "" {
			return i
		}
	}
	return nil
}

func (m *model) count(matches func(*modelIdentity) bool) int {
	n := 0
	for _, i := range m.identities {
		if i.reason == "" && matches(i) {
			n++
		}
	}
	return n
}

func (m *model) all(*modelIdentity) bool { return true }

// refusal returns why an identity cannot be issued, and nil if it can.
func (m *model) refusal(r tokenstore.Request) error {
	most := modelPerSelf
	if r.MaxInstances > 0 {
		most = r.MaxInstances
	}
	switch {
	case m.count(m.all) >= modelTotal:
		return tokenstore.ErrFull
	case m.count(func(i *modelIdentity) bool { return i.self == r.SelfID }) >= most:
		return tokenstore.ErrTooManyInstances
	case r.Peer != "" && m.count(func(i *modelIdentity) bool { return i.peer == r.Peer }) >= modelPerPeer:
		return tokenstore.ErrTooManyForPeer
	}
	return nil
}

// sweepingFor sweeps if a check fails, and checks again.
func (m *model) sweepingFor(check func() error) error {
	err := check()
	if err != nil {
		m.sweep()
		err = check()
	}
	return err
}

func (m *model) end(i *modelIdentity, reason tokenstore.Reason) {
	i.reason = reason
	for _, g := range slices.Collect(maps.Keys(i.grants)) {
		m.endGrant(g)
	}
}

func (m *model) endGrant(g *modelGrant) {
	g.ended = true
	delete(m.grantsOf(g.owner), g)
}

func (m *model) grantsOf(owner *modelIdentity) map[*modelGrant]bool {
	if owner == nil {
		return m.host
	}
	return owner.grants
}

func (m *model) sweep() {
	for _, i := range m.identities {
		if i.reason == "" && !m.now.Before(i.expires) {
			m.end(i, tokenstore.ReasonExpired)
		}
	}
	for _, g := range m.grants {
		if !g.ended && !m.now.Before(g.expires) {
			m.endGrant(g)
		}
	}
}

// verdict says what a verification answers.
func (m *model) verdict(runtimeID, token string, fp tokenstore.Fingerprint) error {
	i := m.find(runtimeID)
	if i == nil {
		return tokenstore.ErrUnknown
	}
	last := len(i.tokens) - 1
	previous := last > 0 && token == i.tokens[last-1] && m.now.Before(i.grace)
	switch {
	case token != i.tokens[last] && !previous:
		return tokenstore.ErrMismatch
	case !m.now.Before(i.expires):
		return tokenstore.ErrExpired
	case i.fp != noCertificate && i.fp != fp:
		return tokenstore.ErrFingerprint
	}
	return nil
}

// renewal says what a renewal answers.
func (m *model) renewal(runtimeID, token string, fp tokenstore.Fingerprint) error {
	if err := m.verdict(runtimeID, token, fp); err != nil {
		return err
	}
	if tokens := m.find(runtimeID).tokens; token != tokens[len(tokens)-1] {
		return tokenstore.ErrSuperseded
	}
	return nil
}

func (m *model) renew(i *modelIdentity, fresh string) {
	i.grace = m.now.Add(modelGrace)
	if i.expires.Before(i.grace) {
		i.grace = i.expires
	}
	i.tokens = append(i.tokens, fresh)
	i.expires = m.now.Add(i.ttl)
}

func (m *model) grantRefusal(owner *modelIdentity) error {
	switch {
	case owner != nil && (owner.reason != "" || !m.now.Before(owner.expires)):
		return tokenstore.ErrEnded
	case len(m.grantsOf(owner)) >= modelMaxGrants:
		return tokenstore.ErrTooManyGrants
	}
	return nil
}

func (m *model) grantVerdict(g *modelGrant, token string, fp tokenstore.Fingerprint) error {
	switch o := g.owner; {
	case g.ended:
		return tokenstore.ErrUnknown
	case token != g.token:
		return tokenstore.ErrMismatch
	case o != nil && !m.now.Before(o.expires):
		return tokenstore.ErrEnded
	case !m.now.Before(g.expires):
		return tokenstore.ErrExpired
	case o != nil && o.fp != noCertificate && o.fp != fp:
		return tokenstore.ErrFingerprint
	}
	return nil
}

// liveGrants returns the ids of the grants that can be used.
func (m *model) liveGrants(owner *modelIdentity) []string {
	var live []string
	for g := range m.grantsOf(owner) {
		if m.now.Before(g.expires) && (owner == nil || m.now.Before(owner.expires)) {
			live = append(live, g.id)
		}
	}
	slices.Sort(live)
	return live
}

// compare looks for differences between the store and the model.
func (m *model) compare(t testing.TB, s *tokenstore.Store, told map[string]tokenstore.Reason, hooks map[string]int) {
	t.Helper()
	wantEqual(t, "len", s.Len(), m.count(m.all))
	var each []string
	s.Each(func(i *tokenstore.Identity) bool {
		each = append(each, i.RuntimeID())
		return true
	})
	for _, i := range m.identities {
		id := i.issued.RuntimeID()
		wantEqual(t, "reason", i.issued.Reason(), i.reason)
		wantEqual(t, "event", told[id], i.reason)
		ended := i.reason != ""
		wantEqual(t, "ended", i.issued.Ended(), ended)
		wantEqual(t, "hook", hooks[id] == 1, ended)
		good := !ended && m.now.Before(i.expires)
		_, found := s.Lookup(id)
		wantEqual(t, "found", found, good)
		wantEqual(t, "among each", slices.Contains(each, id), good)
		if ended {
			continue
		}
		wantEqual(t, "expires", i.issued.ExpiresAt(), i.expires)
		m.compareGrants(t, s, id, i)
	}
	m.compareGrants(t, s, "", nil)
}

func (m *model) compareGrants(t testing.TB, s *tokenstore.Store, id string, owner *modelIdentity) {
	t.Helper()
	var got []string
	for _, g := range s.Grants(id) {
		got = append(got, g.ID)
	}
	slices.Sort(got)
	if want := m.liveGrants(owner); !slices.Equal(got, want) {
		t.Errorf("grants of %q: %v, want %v", id, got, want)
	}
}
