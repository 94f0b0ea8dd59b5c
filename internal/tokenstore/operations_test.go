package tokenstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// runner applies operations to a store and to the model, and compares what they answer.
type runner struct {
	testing.TB
	store    *tokenstore.Store
	clock    *fakeClock
	model    *model
	told     map[string]tokenstore.Reason
	hooks    map[string]int
	sequence uint64
	input    []byte
}

func newRunner(t testing.TB, input []byte) *runner {
	t.Helper()
	s, clock := newStore(modelConfig())
	r := &runner{
		TB: t, store: s, clock: clock, input: input,
		model: &model{now: clock.Now(), host: make(map[*modelGrant]bool)},
		told:  make(map[string]tokenstore.Reason),
		hooks: make(map[string]int),
	}
	s.Subscribe(func(end tokenstore.End) {
		id := end.Identity.RuntimeID()
		if _, twice := r.told[id]; twice || end.Sequence <= r.sequence {
			t.Errorf("event %d of %s, told before: %v, last %d", end.Sequence, id, twice, r.sequence)
		}
		r.told[id], r.sequence = end.Reason, end.Sequence
	})
	return r
}

// choose takes a byte of the input to choose among n.
func (r *runner) choose(n int) int {
	if len(r.input) == 0 || n == 0 {
		return 0
	}
	b := r.input[0]
	r.input = r.input[1:]
	return int(b) % n
}

func (r *runner) fingerprint() tokenstore.Fingerprint {
	return []tokenstore.Fingerprint{noCertificate, someCertificate, otherCertificate}[r.choose(3)]
}

// presented chooses an identity and a token to present for it: mostly its own, the last or an older one.
func (r *runner) presented() (id, token string) {
	if len(r.model.identities) == 0 {
		return "nobody", "nothing"
	}
	some := r.model.identities[r.choose(len(r.model.identities))]
	id = some.issued.RuntimeID()
	last := len(some.tokens) - 1
	switch r.choose(8) {
	case 0:
		return id, "nothing"
	case 1:
		return "nobody", some.tokens[last]
	case 2:
		other := r.model.identities[r.choose(len(r.model.identities))]
		return id, other.tokens[len(other.tokens)-1]
	case 3, 4:
		return id, some.tokens[max(0, last-1-r.choose(2))]
	}
	return id, some.tokens[last]
}

func (r *runner) run() {
	r.Helper()
	operations := []func(){
		r.issue, r.issue, r.verify, r.verify, r.renew, r.renew, r.revoke, r.advance, r.sweep,
		r.issueGrant, r.issueGrant, r.verifyGrant, r.verifyGrant, r.revokeGrant,
	}
	for len(r.input) > 0 && !r.Failed() {
		operations[r.choose(len(operations))]()
		r.model.compare(r, r.store, r.told, r.hooks)
	}
	r.store.RevokeAll(tokenstore.ReasonShutdown)
	for g := range r.model.host {
		r.store.RevokeGrant(g.id)
	}
	wantEqual(r, "residue", r.store.Residue(), 0)
}

func (r *runner) issue() {
	request := tokenstore.Request{
		SelfID:       []string{"a", "b", "c", ""}[r.choose(4)],
		Peer:         []string{"", "p", "q"}[r.choose(3)],
		Fingerprint:  r.fingerprint(),
		TTL:          []time.Duration{0, 5 * time.Second, 30 * time.Second}[r.choose(3)],
		MaxInstances: r.choose(3),
	}
	want := r.model.sweepingFor(func() error { return r.model.refusal(request) })
	identity, token, err := r.store.Issue(request)
	wantError(r, "issue", err, want)
	if err != nil {
		return
	}
	ttl := modelTTL
	if request.TTL > 0 {
		ttl = request.TTL
	}
	r.model.identities = append(r.model.identities, &modelIdentity{
		issued: identity, self: request.SelfID, peer: request.Peer, fp: request.Fingerprint, ttl: ttl,
		tokens: []string{token}, expires: r.model.now.Add(ttl), grants: make(map[*modelGrant]bool),
	})
	identity.OnEnd(func() { r.hooks[identity.RuntimeID()]++ })
}

func (r *runner) verify() {
	id, token := r.presented()
	fp := r.fingerprint()
	identity, err := r.store.Verify(id, token, fp)
	wantError(r, "verify", err, r.model.verdict(id, token, fp))
	if err == nil {
		wantEqual(r, "verified", identity, r.model.find(id).issued)
	}
}

func (r *runner) renew() {
	id, token := r.presented()
	fp := r.fingerprint()
	_, fresh, err := r.store.Renew(id, token, fp)
	wantError(r, "renew", err, r.model.renewal(id, token, fp))
	if err == nil {
		r.model.renew(r.model.find(id), fresh)
	}
}

func (r *runner) revoke() {
	id, _ := r.presented()
	lives := r.model.find(id)
	if lives != nil {
		r.model.end(lives, tokenstore.ReasonRevoked)
	}
	wantEqual(r, "revoked", r.store.Revoke(id, tokenstore.ReasonRevoked), lives != nil)
}

func (r *runner) advance() {
	d := []time.Duration{time.Second, 5 * time.Second, 10 * time.Second, 50 * time.Second}[r.choose(4)]
	r.clock.Advance(d)
	r.model.now = r.clock.Now()
}

func (r *runner) sweep() {
	r.model.sweep()
	r.store.Sweep(r.model.now)
}

func (r *runner) issueGrant() {
	var owner *modelIdentity
	var issued *tokenstore.Identity
	if n := len(r.model.identities); n > 0 && r.choose(4) > 0 {
		owner = r.model.identities[r.choose(n)]
		issued = owner.issued
	}
	want := r.model.sweepingFor(func() error { return r.model.grantRefusal(owner) })
	grant, token, err := r.store.IssueGrant(issued, "logger", "1", modelGrantTTL)
	wantError(r, "grant", err, want)
	if err != nil {
		return
	}
	g := &modelGrant{id: grant.ID, token: token, owner: owner, expires: r.model.now.Add(modelGrantTTL)}
	r.model.grants = append(r.model.grants, g)
	r.model.grantsOf(owner)[g] = true
}

func (r *runner) verifyGrant() {
	if len(r.model.grants) == 0 {
		return
	}
	g := r.model.grants[r.choose(len(r.model.grants))]
	token, fp := g.token, r.fingerprint()
	if r.choose(4) == 0 {
		token = r.model.grants[r.choose(len(r.model.grants))].token
	}
	grant, err := r.store.VerifyGrant(g.id, token, fp)
	wantError(r, "verify grant", err, r.model.grantVerdict(g, token, fp))
	if err == nil {
		wantEqual(r, "owner", grant.Owner == nil, g.owner == nil)
	}
}

func (r *runner) revokeGrant() {
	if len(r.model.grants) == 0 {
		return
	}
	g := r.model.grants[r.choose(len(r.model.grants))]
	wantEqual(r, "revoked grant", r.store.RevokeGrant(g.id), !g.ended)
	if !g.ended {
		r.model.endGrant(g)
	}
}

// operations returns random input for a runner, the same for the same seed.
func operations(seed uint64, n int) []byte {
	random := rand.New(rand.NewPCG(seed, seed))
	input := make([]byte, n)
	for i := range input {
		input[i] = byte(random.UintN(256))
	}
	return input
}

func TestOperationsAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			newRunner(t, operations(seed, 1000)).run()
		})
	}
}

func FuzzOperations(f *testing.F) {
	for seed := range uint64(10) {
		f.Add(operations(seed, 200))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		newRunner(t, input[:min(len(input), 1000)]).run()
	})
}
