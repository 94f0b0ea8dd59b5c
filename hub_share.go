package connectplugin

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/seats"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// fleet is what the instances of a plugin have together, where they proved which it is. What does not, has one each.
type fleet struct {
	fields proxy.Pace   // header fields of what they answer
	open   *seats.Total // requests of theirs that are being served; of what proves nothing, those of its address

	mu    sync.Mutex
	parts [fleetParts]*purses // nil where nobody has it yet
	first *edge.Account       // of one of them
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
	return f.fields.Rested(now) && f.open.Len() == 0
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
		kept := h.fleets.Inherit(account(id), id.Ended, func() *fleet { return &fleet{open: new(seats.Total)} }, (*fleet).whole)
		if id.Proven() {
			number := id.Number() % fleetParts
			s.fleet, s.account = kept, account(id)
			s.purses, s.key = kept.part(number, l), s.account+"#"+strconv.Itoa(number)
			return
		}
		s.fleet, s.account, s.key = &fleet{open: kept.open}, id.RuntimeID(), id.LimiterKey()
		s.purses = s.part(0, l)
	})
	return s
}

// sit takes seats among the requests that are being served, for a key and for what it belongs to, nil for nothing.
func (h *hub) sit(key string, of *share, n int) (took int, met seats.Met) {
	l := &h.settings().limits
	took, met = h.open.Enter(key, n, seats.Bound{Most: l.MaxOpenCalls, Each: l.MaxOpenCallsPerIdentity})
	if of != nil && took > 0 && !of.open.Enter(took, l.openOfFleet()) {
		h.open.Leave(key, took)
		return 0, seats.OfKey
	}
	return took, met
}

// rise gives seats back.
func (h *hub) rise(key string, of *share, took int) {
	h.open.Leave(key, took)
	if of != nil {
		of.open.Leave(took)
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
