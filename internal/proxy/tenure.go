package proxy

import (
	"crypto/tls"
	"maps"
	"net"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// tenures are the connections to a provider that showed a certificate, and until when
// that is good. They are guarded by the provider's mu.
type tenures map[*h2.Conn]time.Time

// noteTenure keeps until when the certificate is good that the provider showed on a
// connection.
func (p *Provider) noteTenure(conn *h2.Conn, nc net.Conn) {
	secure, ok := nc.(*tls.Conn)
	if !ok {
		return
	}
	state := secure.ConnectionState()
	if len(state.PeerCertificates) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tenures == nil {
		p.tenures = tenures{}
	}
	p.tenures[conn] = certs.EndOf(state.PeerCertificates, state.VerifiedChains)
}

// endTenures has a connection take no more calls once the certificate has ended that the
// provider showed on it, so that the next call looks at the one of today. Overtime later
// the calls on it end too, unless the provider showed a good one meanwhile.
func (p *Provider) endTenures(now time.Time) {
	over := p.ended(now)
	for _, conn := range over {
		conn.Retire() // not under mu: one without calls ends, and tells those who wait for room
	}
	if len(over) > 0 {
		p.roomChanged() // another one may take the place of those that go on with their calls
	}
}

// ended returns the connections whose certificate has ended, and closes those that are over.
func (p *Provider) ended(now time.Time) (out []*h2.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.tenures, func(conn *h2.Conn, _ time.Time) bool {
		select {
		case <-conn.Done():
			return true
		default:
			return false
		}
	})
	good := false
	for _, until := range p.tenures {
		good = good || now.Before(until)
	}
	for conn, until := range p.tenures {
		switch {
		case now.Before(until):
		case good || now.Before(until.Add(p.cfg.Overtime)):
			out = append(out, conn)
		case p.ctx.Err() == nil:
			p.background.Go(conn.Close)
		}
	}
	return out
}

// noting returns the configuration for one connection, with which it is noted what
// certificate this side shows. Of one that never changes nothing is noted.
func (p *Provider) noting(cfg *tls.Config) *tls.Config {
	source := cfg.GetClientCertificate
	if source == nil {
		return cfg
	}
	out := cfg.Clone()
	out.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := source(request)
		if err != nil {
			return cert, err
		}
		p.mu.Lock()
		p.shown.Note(certs.LeafOf(cert))
		p.mu.Unlock()
		return cert, nil
	}
	return out
}

// mayRedial reports whether it is time to look for a later certificate, while there is a connection.
func (p *Provider) mayRedial(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &p.lines
	return p.ctx.Err() == nil && len(l.conns) > 0 && l.dialing == nil && l.left(false, now) <= 0 && p.shown.Redial(now)
}

// showRenewed has calls go over another connection where it is time to show the provider a
// later certificate, and there is one, and opens one for the sake of those under way, which end
// otherwise where the provider ends what outlives its certificate.
func (p *Provider) showRenewed(now time.Time) {
	if !p.mayRedial(now) {
		return
	}
	leaf := certs.ClientLeaf(p.cfg.TLS) // not under mu: the user's
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &p.lines
	if leaf == nil || !p.shown.Differs(leaf) || l.dialing != nil || p.ctx.Err() != nil {
		return
	}
	for _, conn := range l.conns {
		p.retireLocked(conn)
	}
	l.conns = nil
	if len(p.calls) > 0 {
		l.dialing = p.dialLocked(p.settleLocked)
	}
}
