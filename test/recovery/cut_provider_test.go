package recovery_test

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// most is what a provider that dies sends of a message of so many bytes: all but one.
func most(size int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		message := make([]byte, size)
		if r.Header.Get("Content-Type") != "application/proto" {
			message = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(size)), message...)
		}
		_, _ = w.Write(message[:len(message)-1])
	}
}

// providerAnswers are the answers of a provider that dies in their midst.
func providerAnswers() map[string]http.HandlerFunc {
	all := maps.Clone(cutAnswers)
	all["most of a message"], all["most of a longer one"] = most(300), most(12<<10)
	all["a stated length"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		most(900)(w, r)
	}
	return all
}

// mortal is a provider whose calls end with its death.
type mortal struct {
	id  string
	die func(hosttest.Death)
	mux *http.ServeMux
}

// bear enrols one and registers it.
func bear(t *testing.T, host *hosttest.Restartable) *mortal {
	t.Helper()
	c := host.Enrol(t, "provider", hosttest.Providing(echoType))
	tls, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	m := &mortal{id: c.RuntimeID(), mux: http.NewServeMux()}
	m.mux.Handle(sayOnce, echoHandler())
	m.mux.Handle(connectpluginv1connect.NewPluginControlHandler(control{id: c.RuntimeID}))
	listener, die := hosttest.Mortal(hosttest.Listen(t))
	m.die = die
	hosttest.ServeOn(t, listener, tls, m.mux)
	err = hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
		ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": "https://" + listener.Addr().String()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// An answer that the provider's death cuts is unavailable, whatever of it was there, to a
// caller of any kind: it is never what its beginning alone would mean, nor a fault of the host.
func TestAudit_USE23_AnAnswerThatItsProvidersDeathCuts(t *testing.T) {
	t.Parallel()
	for name, begin := range providerAnswers() {
		for _, how := range hosttest.Deaths {
			t.Run(name+", "+string(how), func(t *testing.T) {
				t.Parallel()
				host := start(t, func(c *connectplugin.ServeConfig) { c.Policy.Idempotent = nil })
				provider := bear(t, host)
				const procedure = "/echo.v1.Echo/Cut"
				provider.mux.HandleFunc(procedure, cut(provider.die, how, begin))
				api := caller(t, host)
				raw := identified{host.Stranger(t), hosttest.IdentityHeader(api.RuntimeID(), api.RuntimeToken())}
				base := host.URL + "/services/" + echoType + "/" + provider.id
				for from, client := range map[string]connect.HTTPClient{"Client": api.HTTPClient(), "any": raw} {
					for protocol, opt := range protocols() {
						_, err := connect.NewClient[text, text](client, base+procedure, opt).CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
						if connect.CodeOf(err) != connect.CodeUnavailable || !connect.IsWireError(err) {
							t.Errorf("%s, %s: %v", from, protocol, err)
						}
						if strings.Contains(name, "refusal") || strings.Contains(name, "such") || strings.Contains(name, "mistake") || strings.Contains(name, "now") {
							continue // those are Connect's unary calls alone
						}
						if err := streamed(t, client, base+procedure, opt); connect.CodeOf(err) != connect.CodeUnavailable {
							t.Errorf("%s, %s, streaming: %v", from, protocol, err)
						}
					}
				}
				hosttest.Eventually(t, "the next call is answered", func() bool {
					_, err := connect.NewClient[text, text](raw, base+sayOnce).CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
					return err == nil
				})
			})
		}
	}
}

// streamed is the error with which a stream ends.
func streamed(t *testing.T, client connect.HTTPClient, url string, opt connect.ClientOption) error {
	t.Helper()
	stream, err := connect.NewClient[text, text](client, url, opt).CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("x")))
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	if stream.Receive() {
		return errors.New("there was a message")
	}
	return stream.Err()
}

// identified calls with an identity.
type identified struct {
	next   *http.Client
	header http.Header
}

// Do implements connect.HTTPClient.
func (c identified) Do(r *http.Request) (*http.Response, error) {
	maps.Copy(r.Header, c.header)
	return c.next.Do(r)
}
