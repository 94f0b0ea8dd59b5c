package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

const (
	tls13        = tls.VersionTLS13
	nonceBytes   = transcript.NonceSize
	enoughTries  = 3 // after which a subject was asked often enough
	aWhile       = 10 * time.Minute
	lyingRuntime = "conformance.subject-lie0"

	// How many handshakes a subject makes at most with a host that forgets each identity at once, in a time.
	forgetting    = 5 * time.Second
	mostForgotten = 40

	proofField     = 18
	challengeField = 13
)

// lie is what is wrong with a host.
type lie struct {
	name string
	// answer alters the answer after its proof was made; nil alters nothing.
	answer func(*connectpluginv1.HandshakeResponse)
	// secret is the one of the host, where it is not the right one.
	secret []byte
	// certificate is the host's; nil is the right one.
	certificate func(*stage) (*tls.Config, error)
	// forgets has it not know the identity that it gave.
	forgets bool
	since   since
}

// lies are those that a plugin has to see through.
func lies() []lie {
	return []lie{
		{name: "has the certificate of a plugin", since: v2, certificate: func(s *stage) (*tls.Config, error) {
			return s.authority.PluginTLS("conformance.impostor")
		}},
		{name: "has a certificate of an authority that nobody trusts", since: v1, certificate: func(*stage) (*tls.Config, error) {
			other, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
			if err != nil {
				return nil, fmt.Errorf("authority: %w", err)
			}
			return other.HostTLS()
		}},
		{name: "proves nothing", since: v2, answer: func(m *connectpluginv1.HandshakeResponse) { m.ChallengeResponse = nil }},
		{name: "proves another secret", since: v2, secret: newSecret()},
		{name: "gives another token than it proved", since: v2, answer: func(m *connectpluginv1.HandshakeResponse) { m.RuntimeToken += "A" }},
		{name: "answers with another nonce", since: v2, answer: func(m *connectpluginv1.HandshakeResponse) {
			m.ServerNonce = newSecret()
		}},
		{name: "adds a field that the proof does not cover", since: v2, answer: func(m *connectpluginv1.HandshakeResponse) {
			m.Warnings = append(m.Warnings, "all is well")
		}},
	}
}

// liar is a host of which nothing is right but what a lie leaves right.
type liar struct {
	// Fixed at creation.
	stage  *stage
	lie    *lie
	server *http.Server
	addr   string
	done   chan struct{}

	mu      sync.Mutex
	tries   int       // connections or handshakes, whatever comes
	told    int       // handshakes that were answered
	first   time.Time // when the first one was
	used    string    // where the token was used
	changed chan struct{}
}

func newLiar(ctx context.Context, s *stage, l *lie) (*liar, error) {
	config, err := s.authority.HostTLS()
	if l.certificate != nil {
		config, err = l.certificate(s)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	config.VerifyConnection, config.ClientAuth = nil, tls.RequestClientCert
	config.NextProtos = []string{"h2"}
	listener, err := listen(ctx, loopback)
	if err != nil {
		return nil, err
	}
	h := &liar{stage: s, lie: l, addr: listener.Addr().String(), done: make(chan struct{}), changed: make(chan struct{})}
	h.serve(listener, config)
	return h, nil
}

type stateKey struct{}

var errNotProven = errors.New("the request is not proven")

// Handshake answers as a host would, and then lies.
func (h *liar) Handshake(ctx context.Context, req *connect.Request[connectpluginv1.HandshakeRequest]) (*connect.Response[connectpluginv1.HandshakeResponse], error) {
	m := &connectpluginv1.HandshakeResponse{
		CoreProtocolVersion: 1, AppProtocolVersion: 1, MinProtocolVersion: 1,
		RuntimeId: lyingRuntime, RuntimeToken: rand.Text() + rand.Text(), ServerNonce: newSecret(),
		TokenExpiresAt: timestamppb.New(time.Now().Add(aWhile)),
	}
	if !h.stage.options.unproven() {
		if err := h.prove(ctx, req.Msg, m); err != nil {
			return nil, connect.NewError(connect.CodeUnauthenticated, err)
		}
	}
	if h.lie.answer != nil {
		h.lie.answer(m)
	}
	h.tell(func() {
		if h.told++; h.told == 1 {
			h.first = time.Now()
		}
	})
	return connect.NewResponse(m), nil
}

func (h *liar) serve(listener net.Listener, config *tls.Config) {
	mux := http.NewServeMux()
	path, handshake := connectpluginv1connect.NewHandshakeServiceHandler(h)
	mux.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handshake.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), stateKey{}, r.TLS)))
	}))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.tell(func() { h.used = r.URL.Path })
		if h.lie.forgets {
			w.Header().Set("WWW-Authenticate", "Bearer")
			_ = connect.NewErrorWriter().Write(w, r, connect.NewError(connect.CodeUnauthenticated, errForgotten))
			return
		}
		http.Error(w, "not here", http.StatusServiceUnavailable)
	})
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	h.server = &http.Server{
		Handler: mux, TLSConfig: config, Protocols: &protocols, ReadHeaderTimeout: aPluginTime,
		ErrorLog: slog.NewLogLogger(h.stage.options.logger().Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				h.tell(func() { h.tries++ })
			}
		},
	}
	go func() {
		defer close(h.done)
		_ = h.server.ServeTLS(listener, "", "") // ends with close
	}()
}

func (h *liar) close() {
	_ = h.server.Close()
	<-h.done
}

func (h *liar) tell(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

// prove makes the proof, with the secret that the host has and the channel binding that the
// plugin used.
func (h *liar) prove(ctx context.Context, req *connectpluginv1.HandshakeRequest, m *connectpluginv1.HandshakeResponse) error {
	key, err := transcript.ClientKey(h.stage.secret, req.GetClientNonce())
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	state, _ := ctx.Value(stateKey{}).(*tls.ConnectionState)
	binding, err := transcript.ChannelBinding(state)
	if err != nil {
		return fmt.Errorf("binding: %w", err)
	}
	if !key.Verify(requestTranscript(req, binding), req.GetClientProof()) {
		binding = nil
		if !key.Verify(requestTranscript(req, nil), req.GetClientProof()) {
			return errNotProven
		}
	}
	secret := h.stage.secret
	if h.lie.secret != nil {
		secret = h.lie.secret
	}
	m.ChallengeResponse, err = responseProof(req, m, secret, binding)
	return err
}

func requestTranscript(req *connectpluginv1.HandshakeRequest, binding []byte) *transcript.Transcript {
	t := transcript.New("connectplugin handshake v1 request")
	t.Message(req, proofField)
	t.Optional(binding)
	return t
}

func responseProof(req *connectpluginv1.HandshakeRequest, m *connectpluginv1.HandshakeResponse, secret, binding []byte) ([]byte, error) {
	key, err := transcript.ServerKey(secret, req.GetClientNonce(), m.GetServerNonce())
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	asked := transcript.New("connectplugin handshake v1 request hash")
	asked.Message(req)
	hash := asked.Sum()
	t := transcript.New("connectplugin handshake v1 response")
	t.Message(m, challengeField)
	t.Bytes(hash[:])
	t.Optional(binding)
	return key.Proof(t), nil
}

// lies has the subject meet each lie, and first the truth.
func (p *pluginTable) lies(ctx context.Context) {
	p.row(ctx, v1, "takes one that does not lie", func(ctx context.Context) error {
		return p.meet(ctx, &lie{}, func(h *liar) (bool, error) { return h.used != "", nil })
	})
	p.row(ctx, v2, "enrols anew with one that forgets it at once, and less and less often", p.forgotten)
	for _, l := range lies() {
		p.row(ctx, l.since, "refuses one that "+l.name, func(ctx context.Context) error {
			return p.meet(ctx, &l, func(h *liar) (bool, error) {
				switch {
				case h.used != "":
					return true, fmt.Errorf("%w: %s", errBelieved, h.used)
				case l.certificate != nil && h.told > 0:
					return true, fmt.Errorf("%w: the handshake", errBelieved)
				case l.certificate != nil:
					return h.tries >= enoughTries, nil
				}
				return h.told >= enoughTries, nil
			})
		})
	}
}

// forgotten has the subject meet a host that answers its handshakes and knows nobody.
func (p *pluginTable) forgotten(ctx context.Context) error {
	return p.meet(ctx, &lie{forgets: true}, func(h *liar) (bool, error) {
		if h.told < 2 || time.Since(h.first) < forgetting {
			return false, nil
		}
		if h.told > mostForgotten {
			return true, fmt.Errorf("%w: %d handshakes in %v", errTooOften, h.told, forgetting)
		}
		return true, nil
	})
}

var (
	errForgotten = errors.New("the identity is not known")
	errTooOften  = errors.New("it pauses too little")
)

var errBelieved = errors.New("it believed the host and called")

// meet starts the subject with a lying host and waits until what came of it is known. A
// subject that ends has refused.
func (p *pluginTable) meet(ctx context.Context, l *lie, known func(*liar) (bool, error)) error {
	h, err := newLiar(ctx, p.stage, l)
	if err != nil {
		return err
	}
	defer h.close()
	s := p.stage
	process, err := launch(s.options.command, environment("https://"+h.addr, selfSubject, s.credentials(), s.mySecret()), s.options.verbose)
	if err != nil {
		return err
	}
	defer process.kill()
	for {
		h.mu.Lock()
		ok, err := known(h)
		changed, tries := h.changed, h.tries
		h.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-process.done:
			if tries == 0 || l.name == "" {
				return fmt.Errorf("%w by itself; it said: %s", errEnded, process.said)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("nothing came of it: %w; it said: %s", ctx.Err(), process.said)
		}
	}
}

var errEnded = errors.New("it ended")
