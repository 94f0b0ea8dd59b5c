package connectplugin

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/seats"
	"github.com/masegraye/connect-plugin-go/internal/surplus"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// fleet is what the instances of a plugin have together, where they proved which it is. What does not, has one each.
type fleet struct {
	fields proxy.Pace // header fields of what they answer
	holds  *holdings

	mu    sync.Mutex
	parts [fleetParts]*purses // nil where nobody has it yet
	first *edge.Account       // of one of them
}

// holdings are what those of one account have at a time: the instances of a plugin that proved which it is, and of what
// proves nothing the identities of one address.
type holdings struct {
	kin      func() int    // how many they are
	open     seats.Total   // requests that are being served
	watching seats.Total   // watches, of the host's health or whose message is not there yet
	listed   catalog.Fleet // what the catalogue has of them
}

// How many each of them has at any rate, beside a quarter of what there is.
const (
	fewConnections = 2
	fewWatching    = 8
)

// newHoldings returns those of the account of an identity.
func (h *hub) newHoldings(id *tokenstore.Identity) *holdings {
	kin := func() int { return h.store.Kin(id) }
	return &holdings{kin: kin, listed: catalog.Fleet{Size: kin}}
}

// fleetParts is how many times what there is for one instance all of them have together: an instance shares with each
// fourth one after it.
const fleetParts = 4

// purses are the budgets that an instance of a plugin has, and after it the next one.
type purses struct {
	announced *rate.Limiter // bytes that watchers get of its registrations
	carried   *edge.Account // bytes of its connections, and refusals
	ahead     *proxy.Ahead  // bytes of answers that it did not read
}

// part returns a part of it.
func (f *fleet) part(number int, l *Limits) *purses {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.parts[number]
	if p == nil {
		p = &purses{
			announced: rate.NewLimiter(rate.Limit(l.AnnouncedBytesPerSecond), l.AnnouncedBytesBurst),
			ahead:     proxy.NewAhead(l.MaxUnreadBytesPerIdentity),
		}
		bytes := edge.Rate{PerSecond: l.BytesPerSecond, Burst: l.BytesBurst}
		refusals := edge.Rate{PerSecond: l.RefusalsPerSecond, Burst: l.RefusalBurst}
		if f.first == nil {
			f.first = edge.NewAccount(bytes, refusals)
			p.carried = f.first
		} else {
			p.carried = f.first.Beside(bytes, refusals)
		}
		f.parts[number] = p
	}
	return p
}

// whole reports that nothing of it is missing.
func (f *fleet) whole() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, p := range f.parts {
		if p != nil && !p.whole(now) {
			return false
		}
	}
	return f.fields.Rested(now) && f.holds.open.Len() == 0 && f.holds.watching.Len() == 0
}

func (p *purses) whole(now time.Time) bool {
	return p.carried.Whole(now) && p.announced.TokensAt(now) >= float64(p.announced.Burst()) && p.ahead.Whole()
}

// share is what an identity may have of what others want as well: of its fleet's, and its part of that.
type share struct {
	*fleet
	*purses

	once    sync.Once // guards what is above and below
	account string    // for whom its calls are counted where they go
	key     string    // of the budget of its requests
}

// shareOf returns the share of an identity.
func (h *hub) shareOf(id *tokenstore.Identity) *share {
	s := declared(id).share
	s.once.Do(func() {
		l := &h.settings().limits
		kept := h.fleets.Inherit(account(id), id.Ended, func() *fleet { return &fleet{holds: h.newHoldings(id)} }, (*fleet).whole)
		if id.Proven() {
			number := id.Number() % fleetParts
			s.fleet, s.account = kept, account(id)
			s.purses, s.key = kept.part(number, l), s.account+"#"+strconv.Itoa(number)
			return
		}
		s.fleet, s.account, s.key = &fleet{holds: kept.holds}, id.RuntimeID(), id.LimiterKey()
		s.purses = s.part(0, l)
	})
	return s
}

// sit takes seats among the requests that are being served, for a key and for what it belongs to, nil for nothing.
func (h *hub) sit(key string, of *share, n int) (took int, met seats.Met) {
	l := &h.settings().limits
	took, met = h.open.Enter(key, n, seats.Bound{Most: l.MaxOpenCalls, Each: l.MaxOpenCallsPerIdentity})
	if of != nil && took > 0 && !of.holds.open.Enter(took, l.openOfFleet()) {
		h.open.Leave(key, took)
		return 0, ofFleet
	}
	return took, met
}

// ofFleet says that all instances of a plugin have as many seats together as they may.
const ofFleet = seats.InAll + 1

// linger has an answer wait for the windows of its peer after its handler has returned, and its request has left its seat: as many
// as all instances of a plugin may have requests, or an address that has no identity. Of these last there are never so many that
// others find no room.
func (h *hub) linger(c net.Conn) (leave func()) {
	conn, ok := c.(*edge.Conn)
	if !ok {
		return func() {}
	}
	l := &h.settings().limits
	key, bound := addressKey(c.RemoteAddr().String()), seats.Bound{Most: l.MaxOpenCalls, Each: l.openOfFleet()}
	if of, known := connectionOf(conn.Context()); known {
		if id := of.held.Load(); id != nil {
			key = account(id)
			bound.Most += min(bound.Most, math.MaxInt-bound.Most)
		}
	}
	leave, met := h.waiting.Take(key, bound)
	if met != seats.None {
		h.recordPeer(conn, tooManySeats[met], RefusedRequest)
	}
	return leave
}

// seatWatch counts a watch from its first byte, that of a service until its message is there: from then on the
// registry counts it. What is short of is empty where there was a seat.
func (h *hub) seatWatch(in *watchSeat, key string, of *share) (short string) {
	l := &h.settings().limits
	bound := seats.Bound{Most: l.MaxWatches, Each: l.MaxWatchesPerPlugin}
	if _, met := h.watching.Enter(key, 1, bound); met != seats.None {
		return map[seats.Met]string{seats.OfKey: tooManyWatches, seats.InAll: tooManyWatchesInAll}[met]
	}
	if of != nil && !of.holds.watching.Enter(1, seats.Together(bound, fewWatching, of.holds.kin())) {
		h.watching.Leave(key, 1)
		return tooManyWatchesOfFleet
	}
	in.h, in.key, in.of = h, key, of
	return ""
}

// watchSeat is that of a watch whose message is not there yet. The zero value is of none.
type watchSeat struct {
	h    *hub
	key  string
	of   *share // nil where nobody else counts
	left atomic.Bool
}

// leave gives it back, once.
func (s *watchSeat) leave() {
	if s == nil || s.h == nil || s.left.Swap(true) {
		return
	}
	s.h.watching.Leave(s.key, 1)
	if s.of != nil {
		s.of.holds.watching.Leave(1)
	}
}

// holder is an identity as one that has connections.
func (h *hub) holder(id *tokenstore.Identity) edge.Holder {
	l, of := &h.settings().limits, h.shareOf(id)
	each := min(maxHeld, l.MaxConnectionsPerPeer)
	return edge.Holder{
		Name: "identity " + id.RuntimeID(), Most: each, Ended: id.Ended,
		Kin:       kinOfAccount + account(id),
		MostOfKin: seats.Together(seats.Bound{Most: l.MaxConnections, Each: each}, fewConnections, of.holds.kin()),
	}
}

// kinOfAccount begins the name of those of an account as a kin that has connections.
const kinOfAccount = "account "

// together is the budget that an identity has with those of its account: four times what one has, or where those are
// more as many times as the square root of their number.
func (h *hub) together(kind string, id *tokenstore.Identity, one Rate) budget {
	times := max(fleetParts, math.Sqrt(float64(h.store.Kin(id))))
	burst := max(one.Burst, int(min(times*float64(one.Burst), math.MaxInt32)))
	return accountBudget(kind, id, Rate{RequestsPerSecond: times * one.RequestsPerSecond, Burst: burst})
}

// tooManySeats is which bound of open calls was met, as the audit has it.
var tooManySeats = map[seats.Met]string{seats.OfKey: tooManyCalls, ofFleet: tooManyCallsOfFleet, seats.InAll: tooManyInAll}

// rise gives seats back.
func (h *hub) rise(key string, of *share, took int) {
	h.open.Leave(key, took)
	if of != nil {
		of.holds.open.Leave(took)
	}
}

// leaveSeats gives the seats of a request back when it has ended.
func leaveSeats(w http.ResponseWriter, h *hub, key string, of *share, took int) {
	if l := h2serve.LastingOf(w); l != nil {
		l.After(func() { h.rise(key, of, took) })
		return
	}
	h.rise(key, of, took)
}

// openOfFleet is how many requests of all instances of a plugin are served at a time: as many as of some, but never so
// many that others find no room.
func (l *Limits) openOfFleet() int {
	return max(l.MaxOpenCallsPerIdentity, min(fleetParts*l.MaxOpenCallsPerIdentity, l.MaxOpenCalls-l.MaxOpenCalls/fleetParts))
}

// met is which bound of the catalogue's an error is about, of one instance, of all of a plugin, of one type or of all together.
func met(err error, ofOne, ofFleet, ofType, inAll string) string {
	switch {
	case errors.Is(err, catalog.ErrLimitOfFleet):
		return ofFleet
	case errors.Is(err, catalog.ErrLimitOfType):
		return ofType
	case errors.Is(err, catalog.ErrLimitInAll):
		return inAll
	}
	return ofOne
}

// look returns the identity and the key of the certificate that a plugin showed: when it was adopted or, where it came by
// itself, when it enrolled. A nil likeness is that of one that came by itself.
func (h *hub) look(id *tokenstore.Identity) (identity string, key certs.Pin) {
	l := declared(id).adopted
	if l == nil {
		return declared(id).certIdentity, certs.Pin(id.Fingerprint())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity, l.key
}

// checkNamed demands of a provider a certificate that policy names, where that names some. The host knows those of its launches.
func (h *hub) checkNamed(rules *policy.Rules, leaf *x509.Certificate) error {
	identity := certs.CertificateIdentity(leaf)
	if rules.Certificates.NamesAny() && !rules.Certificates.Has(identity) && h.launches.Find(identity) == nil {
		return fmt.Errorf("plugin answers as %q, which %w", identity, policy.ErrNotNamed)
	}
	return nil
}

// callerBudget is one that an identity has, and after it the next instance of its plugin, where it proved which.
func callerBudget(kind string, id *tokenstore.Identity, rate Rate) budget {
	return budget{key: kind + id.LimiterKey(), rate: rate}
}

// accountBudget is one that an identity shares with those that its plugin had before and has besides: to enrol
// anew fills none.
func accountBudget(kind string, id *tokenstore.Identity, rate Rate) budget {
	return budget{key: kind + account(id), rate: rate, stranger: !id.Proven()}
}

// account is whose an identity is: the self id where that was proven, and otherwise the address that it was
// issued to, as whoever proves nothing may say any self id.
func account(id *tokenstore.Identity) string {
	if peer := id.Peer(); peer != "" && !id.Proven() {
		return "unproven:" + peer
	}
	return pluginAccount + id.SelfID()
}

const pluginAccount = "plugin:"

// peerBudget is one that an address has.
func peerBudget(kind string, p *peer, rate Rate) budget {
	return budget{key: kind + addressKey(p.addr), rate: rate, stranger: true}
}

// recordedOfStrangers is what all strangers together have recorded: refusals, denials, newcomers and what is cut off. Each
// of their addresses has a budget of its own, and of those anybody may have a thousand.
//
//nolint:mnd // named by its fields
var recordedOfStrangers = surplus.Config{PerSecond: 200, Burst: 1000, Every: time.Second, Sources: 4096, Kinds: 16}

// auditFrom records an event of somebody the host knows, or of a stranger as long as the budget that all strangers have in
// common lasts.
func (h *hub) auditFrom(known bool, e AuditEvent) {
	if !known {
		ok, rest := h.strange.Spend(e.Kind, addressKey(e.Peer), time.Now())
		h.auditRest(rest)
		if !ok {
			return
		}
	}
	h.audit(e)
}

// auditRest says what of strangers was not recorded.
func (h *hub) auditRest(r surplus.Rest[AuditKind]) {
	if r.N == 0 {
		return
	}
	kinds := make([]string, 0, len(r.Kinds))
	for _, kind := range slices.Sorted(maps.Keys(r.Kinds)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, r.Kinds[kind]))
	}
	least := ""
	if r.More {
		least = "at least "
	}
	h.audit(AuditEvent{
		Kind: AuditLimited, Count: r.N,
		Reason: fmt.Sprintf("%s: %s; of %s%d addresses", tooManyStrange, strings.Join(kinds, ", "), least, r.Sources),
	})
}

const tooManyStrange = "more events of strangers than are recorded one by one"

// isKnown reports whether the host knows a peer though it does not say who calls: it showed a certificate, proved itself
// in a handshake, or called before over the connection.
func (p *peer) isKnown() bool {
	return p.proven || p.certificate != nil || p.conn != nil && p.conn.last.Load() != nil
}

// toldLater takes what a watcher gets of a provider from the provider's share, and returns how
// much later it gets it. What the host itself registered or watches is not counted.
func toldLater(c *caller, e catalog.Event) time.Duration {
	if c == nil || len(e.Provider.Metadata) == 0 {
		return 0
	}
	id, ok := c.hub.store.Lookup(e.Provider.RuntimeID)
	if !ok {
		return 0
	}
	bytes := 0
	for key, value := range e.Provider.Metadata {
		bytes += len(key) + len(value)
	}
	of := c.hub.shareOf(id).announced
	late := delay(of, time.Now(), min(bytes, of.Burst()))
	if late > 0 {
		c.hub.auditWait(id, tooManyAnnounced)
	}
	return late
}

// delay takes n of a limiter, and returns how long that is to be waited for.
func delay(of *rate.Limiter, now time.Time, n int) time.Duration {
	if of.AllowN(now, n) { // as most of the time, and without memory for a reservation
		return 0
	}
	return of.ReserveN(now, n).DelayFrom(now)
}

// tempoOf is how fast a caller is told of changes. The host itself is told of all.
func tempoOf(c *caller) *rate.Limiter {
	if c == nil {
		return rate.NewLimiter(rate.Inf, 0)
	}
	l := &c.hub.settings().limits
	return rate.NewLimiter(rate.Limit(l.WatchEventsPerSecond), l.WatchEventBurst)
}
