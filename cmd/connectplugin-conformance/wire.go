package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

const headerRuntimeID = "X-Plugin-Runtime-Id"

// Versions that the host under test speaks.
const (
	lowestApp  = 1
	highestApp = 3
)

// wire is one connection to the host under test, on which every message is the kit's own.
type wire struct {
	// Fixed at creation.
	url     string
	secret  []byte
	client  *http.Client
	state   tls.ConnectionState
	conn    *tls.Conn
	options []connect.ClientOption
}

// dial opens a connection with a configuration.
func dial(ctx context.Context, addr string, secret []byte, config *tls.Config, options ...connect.ClientOption) (*wire, error) {
	d := tls.Dialer{Config: config}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	conn, ok := raw.(*tls.Conn)
	if !ok {
		return nil, errors.Join(errWrongAnswer, raw.Close())
	}
	return &wire{
		url: "https://" + addr, secret: secret, client: &http.Client{Transport: over(conn)}, state: conn.ConnectionState(), conn: conn,
		options: options,
	}, nil
}

func (w *wire) close() { _ = w.conn.Close() }

var errLost = errors.New("the connection is lost")

// over sends every request over one connection.
func over(conn *tls.Conn) http.RoundTripper {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	var dialled atomic.Bool
	return &http.Transport{Protocols: &protocols, DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		if dialled.Swap(true) {
			return nil, errLost
		}
		return conn, nil
	}}
}

// asks is a handshake before it is proven, and what may be done to it.
type asks struct {
	edit   func(*connectpluginv1.HandshakeRequest) // before the proof
	forge  func(*connectpluginv1.HandshakeRequest) // after it
	secret []byte                                  // nil is the right one, empty none
	bound  bool
	header http.Header
}

// request makes and proves a request.
func (w *wire) request(self string, a *asks) (*connectpluginv1.HandshakeRequest, []byte, error) {
	m := &connectpluginv1.HandshakeRequest{
		CoreProtocolVersion: 1, AppProtocolVersion: highestApp, MinProtocolVersion: lowestApp, MaxProtocolVersion: highestApp,
		MagicCookieKey: connectplugin.DefaultMagicCookieKey, MagicCookieValue: connectplugin.DefaultMagicCookieValue,
		SelfId: self, SelfVersion: version, ClientNonce: newSecret(), IssuedAt: timestamppb.Now(),
		Provides: []*connectpluginv1.ServiceDeclaration{{Type: typeSubject, Version: version, Path: base}},
		Requires: []*connectpluginv1.ServiceDependency{{Type: typeSubject}},
	}
	if a.edit != nil {
		a.edit(m)
	}
	var binding []byte
	if a.bound {
		value, err := transcript.ChannelBinding(&w.state)
		if err != nil {
			return nil, nil, fmt.Errorf("binding: %w", err)
		}
		binding = value
	}
	secret := a.secret
	if secret == nil {
		secret = w.secret
	}
	if len(secret) > 0 {
		key, err := transcript.ClientKey(secret, m.GetClientNonce())
		if err != nil {
			return nil, nil, fmt.Errorf("key: %w", err)
		}
		m.ClientProof = key.Proof(requestTranscript(m, binding))
	}
	if a.forge != nil {
		a.forge(m)
	}
	return m, binding, nil
}

// handshake sends a request of the caller and checks the proof of the answer.
func (w *wire) handshake(ctx context.Context, a *asks) (*connectpluginv1.HandshakeResponse, error) {
	m, binding, err := w.request(selfCaller, a)
	if err != nil {
		return nil, err
	}
	answer, err := w.send(ctx, m, a.header)
	if err != nil {
		return nil, err
	}
	proof, err := responseProof(m, answer, w.secret, binding)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(proof, answer.GetChallengeResponse()) {
		return nil, fmt.Errorf("%w: the host's proof does not hold", errWrongAnswer)
	}
	return answer, nil
}

func (w *wire) send(ctx context.Context, m *connectpluginv1.HandshakeRequest, header http.Header) (*connectpluginv1.HandshakeResponse, error) {
	req := connect.NewRequest(m)
	maps.Copy(req.Header(), header)
	resp, err := connectpluginv1connect.NewHandshakeServiceClient(w.client, w.url, w.options...).Handshake(ctx, req)
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// credentials are the header fields of an identity.
func credentials(m *connectpluginv1.HandshakeResponse) http.Header {
	return http.Header{
		headerRuntimeID: {m.GetRuntimeId()}, "Authorization": {"Bearer " + m.GetRuntimeToken()},
	}
}

// withHeader gives a request the header fields.
func withHeader[T any](m *T, header http.Header) *connect.Request[T] {
	req := connect.NewRequest(m)
	maps.Copy(req.Header(), header)
	return req
}

func (w *wire) registry() connectpluginv1connect.ServiceRegistryClient {
	return connectpluginv1connect.NewServiceRegistryClient(w.client, w.url, w.options...)
}

// discover asks for the provider of a type.
func (w *wire) discover(ctx context.Context, serviceType string, header http.Header) (*connectpluginv1.ServiceEndpoint, error) {
	resp, err := w.registry().DiscoverService(ctx,
		withHeader(&connectpluginv1.DiscoverServiceRequest{ServiceType: serviceType}, header))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetEndpoint(), nil
}

// report tells the host something of the plugin's health.
func (w *wire) report(ctx context.Context, m *connectpluginv1.ReportHealthRequest, header http.Header) error {
	_, err := connectpluginv1connect.NewPluginLifecycleClient(w.client, w.url, w.options...).ReportHealth(ctx, withHeader(m, header))
	return err
}

// wants compares the code of an error.
func wants(err error, codes ...connect.Code) error {
	for _, code := range codes {
		if err != nil && connect.CodeOf(err) == code {
			return nil
		}
	}
	return fmt.Errorf("%w: %s instead of %v", errWrongAnswer, describe(err), codes)
}

// ago is a time before now.
func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(-d)) }
