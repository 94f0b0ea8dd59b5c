package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/bom"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/inflight"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// admit decides whether the peer is the plugin that it claims to be. In the host's own
// process everybody is admitted.
func (hs *handshake) admit(selfID string) error {
	if hs.peer == nil {
		return nil
	}
	rules := hs.known.Rules
	secret := hs.secretOf(selfID, hs.known)
	if len(hs.req.GetClientProof()) == 0 && hs.hub.launches.Find(hs.certIdentity()) != nil {
		secret = nil // the certificate of a launch proves more: the host itself gave it to the plugin
	}
	bySecret, err := hs.proveSecret(secret)
	switch {
	case rules == nil:
		return refused("policy does not know this plugin: add its self id or the identity of its certificate to Policy.Plugins, " +
			"or set Policy.Default")
	case err != nil:
		return err
	}
	if err := mayClaim(hs.known, selfID); err != nil {
		return refused(err.Error())
	}
	byCertificate, err := hs.proveCertificate(selfID, rules)
	if err != nil {
		return err
	}
	if !hs.known.ByCertificate && !bySecret && !byCertificate && !rules.AllowUnproven {
		return hs.unproven()
	}
	hs.proven = hs.known.ByCertificate || bySecret || byCertificate
	return nil
}

// unproven refuses a self id that nothing proves.
func (hs *handshake) unproven() error {
	why := "nothing proves this self id: "
	if hs.cfg.authority != nil {
		why += "it showed no certificate of the Authority: set ClientConfig.TLS (WriteCredentials), or "
	}
	why += "give it a Secret or Certificates in its PluginPolicy, or set AllowUnproven to accept whoever names it"
	return refused(why + hs.peer.notAsked())
}

// mayClaim refuses a self id that the holder of a certificate may not claim.
func mayClaim(known policy.Match, selfID string) error {
	if known.ByCertificate && known.Name != selfID {
		return known.Rules.CheckSelfID(selfID)
	}
	return nil
}

// secretOf returns the enrolment secret of a plugin, nil for none. Its name goes before
// the self id that it claims, which may be anything.
func (hs *handshake) secretOf(selfID string, known policy.Match) Secret {
	if f := hs.cfg.handshake.Secret; f != nil {
		if s := f(known.Name); s != nil { // also one that is of no use: that is no word of having none
			return s
		}
		if s := f(selfID); known.Name != selfID && s != nil {
			return s
		}
	}
	if known.Rules != nil && len(known.Rules.Secret) > 0 {
		return Secret(known.Rules.Secret)
	}
	return nil
}

// proveSecret checks the client's proof. It does the same for a self id without a secret or
// that nobody knows, with a secret that nobody has.
func (hs *handshake) proveSecret(secret Secret) (bool, error) {
	hasProof := len(hs.req.GetClientProof()) > 0
	checked := secret
	if len(secret) < minSecretBytes {
		checked = hs.hub.decoy
	}
	binding := hs.peer.binding()
	bound := verifyHandshakeRequest(hs.req, checked, binding) && binding != nil
	unbound := verifyHandshakeRequest(hs.req, checked, nil)
	switch {
	case secret == nil && !hasProof:
		return false, nil
	case secret == nil:
		return false, refused("the plugin proves a secret and the host has none for it: set PluginPolicy.Secret")
	case len(secret) < minSecretBytes:
		return false, refused("HandshakeAuth.Secret returned fewer than 16 bytes for it, as of a file that is being written; " +
			"it returns nil where there is none")
	case bom.CheckSecret(secret) != nil:
		return false, refused("HandshakeAuth.Secret returned one that begins with a byte order mark: save its file as UTF-8 without one")
	case !hasProof:
		return false, refused("the plugin proves no secret and policy demands one: set ClientConfig.Secret")
	case !bound && !unbound:
		return false, refused("the plugin's proof is wrong: its secret differs from the host's, the message was altered, or the proof is " +
			"bound to another TLS connection than this one, as it is where a balancer ends TLS in between: let that pass TCP on")
	case !bound && hs.cfg.handshake.RequireChannelBinding:
		return false, refused("the plugin's proof is not bound to this TLS connection")
	}
	if err := hs.claimNonce(hs.known.Name, bound); err != nil {
		return false, err
	}
	hs.secret = secret
	if bound {
		hs.binding = binding
	}
	return true, nil
}

// claimNonce refuses a proof that is too old, from the future, or seen before.
func (hs *handshake) claimNonce(name string, bound bool) error {
	if hs.req.GetIssuedAt() == nil {
		return refused("the proof carries no issued_at")
	}
	n, issuedAt := hs.server.nonces.Load(), hs.req.GetIssuedAt().AsTime()
	claim := func() error { return n.unbound.Claim(name, hs.req.GetClientNonce(), issuedAt, time.Now()) }
	if bound {
		claim = func() error { return n.bound.Claim(name, hs.req.GetClientNonce(), issuedAt, n.clock.Now()) }
	}
	if err := claim(); err != nil {
		return refused(err.Error())
	}
	return nil
}

// proveCertificate checks the client certificate as the rules demand and reports
// whether it proves the self id.
func (hs *handshake) proveCertificate(selfID string, rules *policy.Rules) (bool, error) {
	cert := hs.peer.certificate
	if cert == nil {
		if hs.cfg.handshake.RequireCertificate || rules.DemandCertificate() {
			return false, refused(noCertificate + hs.peer.notAsked())
		}
		return false, nil
	}
	if err := hs.certificateIsCurrent(cert); err != nil {
		return false, err
	}
	proven, err := hs.checkCertificate(rules, cert.identity, certs.PinOf(cert.leaf))
	if err != nil {
		return false, refused(err.Error())
	}
	named, ok, err := hs.authoritySays(cert)
	switch {
	case err != nil:
		return false, err
	case ok && named != selfID:
		return false, refused(fmt.Sprintf("the certificate is that of %q", named))
	}
	return proven || ok, nil
}

// certificateIsCurrent refuses a certificate that ended since its connection was made:
// by its time, or with the launch that it belongs to.
func (hs *handshake) certificateIsCurrent(cert *certificate) error {
	if at := cert.ends; time.Now().After(at) {
		return refused("the certificate of the connection ended at " + at.UTC().Format(time.RFC3339))
	}
	if a := hs.cfg.authority; a != nil {
		if err := a.refuseEndedLaunch(cert.leaf); err != nil {
			return refused(err.Error())
		}
	}
	return nil
}

// authoritySays returns the self id that a certificate of the host's own
// authority names. The certificate of a launch names none.
func (hs *handshake) authoritySays(cert *certificate) (selfID string, ok bool, err error) {
	a := hs.cfg.authority
	if a == nil {
		return "", false, nil
	}
	id, err := certs.ParseID(cert.identity)
	if err != nil || id.TrustDomain != a.TrustDomain() {
		return "", false, nil //nolint:nilerr // a certificate of somebody else proves nothing here
	}
	// Without a leaf the certificate was looked at when the plugin enrolled.
	if cert.leaf != nil {
		if err := a.vouchFor(cert.leaf); err != nil {
			return "", false, refused(err.Error())
		}
	}
	switch id.Role {
	case certs.RolePlugin:
		return id.Name, true, nil
	case certs.RoleLaunch:
		if launched := hs.hub.launches.Find(cert.identity); launched != nil {
			return launched.SelfID, true, nil
		}
		return "", false, nil // proves what the plugin's Certificates say that it proves
	case certs.RoleHost:
	}
	return "", false, refused(fmt.Sprintf("certificate identity %q is not a plugin's", cert.identity))
}

// checkCertificate checks a certificate against the rules. That of a launch is worth the
// one that the authority gives the plugin itself.
func (hs *handshake) checkCertificate(rules *policy.Rules, identity string, key certs.Pin) (proven bool, err error) {
	if launched := hs.hub.launches.Find(identity); launched != nil && hs.cfg.authority != nil {
		own := hs.cfg.authority.PluginIdentity(launched.SelfID)
		if rules.Certificates.Has(own) {
			identity = own
		}
	}
	proven, err = rules.CheckCertificate(identity, key)
	if err != nil {
		return false, fmt.Errorf("certificate: %w", err)
	}
	return proven, nil
}

// certificateStands reports whether the certificate of an identity is still good
// enough for its rules, and whether it proves the self id.
func (hs *handshake) certificateStands(id *tokenstore.Identity, rules *policy.Rules) (proven, ok bool) {
	identity := declared(id).certIdentity
	proven, err := hs.checkCertificate(rules, identity, certs.Pin(id.Fingerprint()))
	if err != nil {
		return false, false
	}
	named, byAuthority, err := hs.authoritySays(&certificate{identity: identity})
	return proven || byAuthority, err == nil && (!byAuthority || named == declared(id).selfID)
}

// pay takes the handshake from the budget of who proved who it is, and otherwise from that
// of the address, so that nobody pays for what others on its address do. It looks once more
// whether there is still somebody who waits for the answer.
func (hs *handshake) pay(ctx context.Context) error {
	if hs.peer == nil {
		return nil
	}
	l := &hs.cfg.limits
	own, pace := peerBudget("handshake:", hs.peer, l.handshakeRate()), &hs.hub.unproven
	if hs.proven {
		instances := l.MaxIdentitiesPerSelfID
		if rules := hs.known.Rules; rules != nil && rules.MaxInstances > 0 {
			instances = rules.MaxInstances
		}
		own, pace = budget{key: "proven:" + hs.known.Name, rate: l.provenRate(instances)}, &hs.hub.proven
	}
	total := l.enrolmentRate()
	if wait := pace.Admit(total.RequestsPerSecond, total.Burst, time.Now()); wait > 0 {
		return tooManyError{tooManyEnrolments, wait}
	}
	if !hs.hub.spend(own) {
		pace.Return()
		return tooManyError{tooManyHandshakes, own.rate.wait()}
	}
	settled(ctx)
	if ctx.Err() != nil {
		return endOfStream(ctx)
	}
	return nil
}

// take has whoever does not renew an identity pay, and looks at what the request lists then: that takes longest.
func (hs *handshake) take(ctx context.Context, renews bool) error {
	if !renews {
		if err := hs.pay(ctx); err != nil {
			return err
		}
	}
	if err := validateHandshakeLists(hs.req); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return nil
}

const noCertificate = "a client certificate is required and none was verified"

// anonymous admits a client that asks for no identity: it learns what the host
// offers to it and gets no token.
func (hs *handshake) anonymous(ctx context.Context) error {
	if hs.peer != nil && hs.cfg.handshake.RequireCertificate && hs.peer.certificate == nil {
		return refused(noCertificate + hs.peer.notAsked())
	}
	return hs.take(ctx, false)
}

// tooManyError refuses for now what comes too fast. The reason is for the log.
type tooManyError struct {
	reason string
	wait   time.Duration
}

// certIdentity returns the identity in the certificate that the peer showed, empty for
// none.
func (hs *handshake) certIdentity() string {
	if hs.peer == nil || hs.peer.certificate == nil {
		return ""
	}
	return hs.peer.certificate.identity
}

// asLaunched refuses a launched plugin that provides other services than it was
// launched for: what the host is configured with wins.
func (hs *handshake) asLaunched(d *declaration) error {
	launched := d.launch
	if launched == nil || len(launched.Provides) == 0 || d.provides.Has(policy.Any) {
		return nil
	}
	if is, want := d.provides.List(), policy.NewSet(launched.Provides).List(); !slices.Equal(is, want) {
		return refused(fmt.Sprintf("it was launched to provide %q and declares %q", want, is))
	}
	return nil
}

// declare intersects nothing: it keeps what the plugin declared and warns of
// what policy will cut. Policy is asked again at every use.
func (hs *handshake) declare(rules *policy.Rules, certIdentity string) *declaration {
	d := newDeclaration(hs.req.GetSelfId())
	d.modern, d.inGRPC = len(hs.req.GetClientNonce()) > 0, hs.protocol == connect.ProtocolGRPC
	d.certIdentity, d.secret = certIdentity, hs.secret
	if hs.peer != nil {
		d.addr = hs.peer.addr
	}
	if hs.peer != nil && hs.peer.certificate != nil {
		d.certEnds = hs.peer.certificate.ends
	}
	if d.launch = hs.hub.launches.Find(certIdentity); d.launch != nil && d.launch.Current() != nil {
		d.within = declared(d.launch.Current()).within // the operator narrowed the instance
	}
	if len(hs.req.GetClientNonce()) == 0 {
		return d // the first wire version declares nothing
	}
	var provides, requires []string
	for _, p := range hs.req.GetProvides() {
		provides = append(provides, p.GetType())
		if rules != nil && !rules.Provides.Has(p.GetType()) {
			hs.warnings = append(hs.warnings, fmt.Sprintf("provides %q: not allowed by the host's policy", p.GetType()))
		}
	}
	for _, r := range hs.req.GetRequires() {
		requires = append(requires, r.GetType())
		d.dependencies = append(d.dependencies, ServiceDependency{
			Type: r.GetType(), MinVersion: r.GetMinVersion(),
			RequiredForStartup: r.GetRequiredForStartup(), WatchForChanges: r.GetWatchForChanges(),
		})
		if rules != nil && !rules.Requires.Has(r.GetType()) {
			hs.warnings = append(hs.warnings, fmt.Sprintf("requires %q: not allowed by the host's policy", r.GetType()))
		}
	}
	d.provides, d.requires = policy.NewSet(provides), policy.NewSet(requires)
	return d
}

func (t tooManyError) Error() string { return t.reason }

// recheck ends an identity that policy stopped accepting while the handshake was
// being served.
func (hs *handshake) recheck(id *tokenstore.Identity) error {
	if hs.isBarred() {
		hs.hub.store.Revoke(id.RuntimeID(), tokenstore.ReasonRevoked)
		return hs.barred()
	}
	if hs.hub.rules.Load() == hs.book || hs.hub.accepts(id) {
		return nil
	}
	hs.hub.store.Revoke(id.RuntimeID(), tokenstore.ReasonPolicy)
	return refused("policy changed during the handshake")
}

// reasonUndelivered says that nobody got to know of an identity.
const reasonUndelivered tokenstore.Reason = "its plugin did not wait for the answer"

type deliveryKey struct{}

// delivery is the answer of a handshake on its way.
type delivery struct {
	issued *tokenstore.Identity // nil where it issues none
}

// delivering ends an identity whose plugin was gone before it could learn of it, and gives
// one that does not read little longer than a call may take, so that one whose time is over is told so.
func (s *HandshakeServer) delivering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, ctrl := &delivery{}, http.NewResponseController(w)
		_ = ctrl.SetWriteDeadline(time.Now().Add(s.hub.settings().limits.CallTimeout).Add(inflight.EndGrace)) // not every writer has deadlines
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), deliveryKey{}, d)))
		if d.issued == nil {
			return
		}
		err := ctrl.Flush()
		if errors.Is(err, http.ErrNotSupported) {
			err = nil
		}
		if err != nil || r.Context().Err() != nil {
			s.hub.store.Revoke(d.issued.RuntimeID(), reasonUndelivered)
		}
	})
}

// offer is what a host has for those who enrol.
type offer struct {
	// Fixed at creation.
	hub     *hub
	plugins PluginSet
	broker  *CapabilityBroker // may be nil
}

// listing is what a handshake tells a plugin about the host.
type listing struct {
	known        bool // it is a plugin, or an auth provider knows it
	plugins      []*connectpluginv1.PluginInfo
	capabilities []*connectpluginv1.Capability
}

// list tells a plugin which of the host's plugins and capabilities are there
// for it: those that it asked for (all where it asked for none) and policy lets
// it use. Whoever is no plugin learns of what is public and, where an auth provider
// knows him, of what he may call.
func (o *offer) list(ctx context.Context, id *tokenstore.Identity, requested []string) listing {
	l := listing{known: id != nil || GetAuthContext(ctx) != nil}
	for _, name := range o.plugins.Keys() {
		if len(requested) > 0 && !slices.Contains(requested, name) {
			continue
		}
		if o.lists(id, l.known, name) {
			l.plugins = append(l.plugins, pluginInfo(name, o.plugins[name].Metadata(), l.known || o.hub.rules.Load().Open()))
		}
	}
	if id == nil || o.broker == nil {
		return l
	}
	for _, c := range o.broker.ListCapabilities() {
		if o.hub.mayUse(id, c.GetType()) {
			c.Endpoint = o.broker.base(ctx)
			l.capabilities = append(l.capabilities, c)
		}
	}
	return l
}

func (o *offer) lists(id *tokenstore.Identity, known bool, name string) bool {
	if id != nil {
		known = o.hub.mayCallHostPlugin(id, name)
	}
	return known || o.hub.rules.Load().Public.Has(name)
}

// pluginInfo is what is told of a plugin. What it has to do with services of plugins is nothing to whom nobody knows.
func pluginInfo(name string, m PluginMetadata, known bool) *connectpluginv1.PluginInfo {
	info := &connectpluginv1.PluginInfo{Name: name, Version: m.Version, ServicePath: m.Path}
	if known {
		info.Provides, info.Requires = wireDeclarations(m.Provides), wireDependencies(m.Requires)
	}
	return info
}

type enrollingKey struct{}

// enrolling is a handshake of a stranger until it has proved something.
type enrolling struct {
	// Fixed at creation.
	hub  *hub
	peer *peer
	size int // see seatsOf

	leave func() bool // nil before it entered; used by the request's goroutine alone
}

// enter counts the handshake among those of which nothing is proven. Displaced is called
// where it has to make room for another.
func (e *enrolling) enter(displaced func()) (leave func() bool) {
	e.leave = e.hub.enrolling.Enter(addressKey(e.peer.addr), e.size, func(inAll bool) {
		bound := tooManyPending
		if inAll {
			bound = tooManyPendingInAll
		}
		e.hub.auditBound(e.peer, connectpluginv1connect.HandshakeServiceHandshakeProcedure, bound)
		displaced()
	})
	return e.leave
}

// settled ends that: nobody displaces the handshake any more.
func settled(ctx context.Context) {
	if e, ok := ctx.Value(enrollingKey{}).(*enrolling); ok && e.leave != nil {
		e.leave()
	}
}
