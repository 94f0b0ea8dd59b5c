package connectplugin

import (
	"crypto/rand"
	"errors"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// brittleRandom is a source of randomness that can fail.
type brittleRandom struct{ broken atomic.Bool }

func (r *brittleRandom) Read(p []byte) (int, error) {
	if r.broken.Load() {
		return len(p) / 2, errors.New("the source of randomness is gone")
	}
	return rand.Read(p)
}

// Where the source of randomness fails, a handshake over the wire gets nothing, in
// every protocol, neither an identity nor a renewal, and what lives goes on.
func TestAudit_AUTH001_AUTH003_NothingIsIssuedWithoutRandomness(t *testing.T) {
	t.Parallel()
	random := &brittleRandom{}
	cfg := (&ServeConfig{Policy: OpenPolicy()}).withDefaults()
	s := NewHandshakeServer(cfg)
	store := s.hub.settings().storeConfig()
	store.Rand = random
	s.hub.store = tokenstore.New(store)
	_, handler := HandshakeServerHandler(s)
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)

	for name, opts := range map[string][]connect.ClientOption{"connect": nil, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()}} {
		client := connectpluginv1connect.NewHandshakeServiceClient(server.Client(), server.URL, opts...)
		ask := func(id, token string) (*connectpluginv1.HandshakeResponse, error) {
			req := connect.NewRequest(&connectpluginv1.HandshakeRequest{
				CoreProtocolVersion: coreProtocolVersion, AppProtocolVersion: 1, SelfId: "plugin",
				MagicCookieKey: DefaultMagicCookieKey, MagicCookieValue: DefaultMagicCookieValue,
			})
			if id != "" {
				req.Header().Set(headerRuntimeID, id)
				req.Header().Set(headerAuthorization, bearerPrefix+token)
			}
			resp, err := client.Handshake(t.Context(), req)
			if err != nil {
				return nil, err
			}
			return resp.Msg, nil
		}
		honest, err := ask("", "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		live := s.hub.store.Len()
		random.broken.Store(true)
		for what, credential := range map[string][2]string{
			"an identity": {}, "a renewal": {honest.GetRuntimeId(), honest.GetRuntimeToken()},
		} {
			// What exactly fails is the operator's to know.
			if got, err := ask(credential[0], credential[1]); got != nil || connect.CodeOf(err) != connect.CodeInternal {
				t.Errorf("%s: %s without randomness: %v, %v", name, what, got, err)
			}
		}
		if s.hub.store.Len() != live || !s.ValidateToken(honest.GetRuntimeId(), honest.GetRuntimeToken()) {
			t.Errorf("%s: %d identities live, want %d, and the first one's token: %t", name, s.hub.store.Len(), live,
				s.ValidateToken(honest.GetRuntimeId(), honest.GetRuntimeToken()))
		}
		random.broken.Store(false)
		if got, err := ask(honest.GetRuntimeId(), honest.GetRuntimeToken()); err != nil || got.GetRuntimeId() != honest.GetRuntimeId() {
			t.Errorf("%s: with randomness again: %v, %v", name, got, err)
		}
	}
}
