package identity_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestAudit_REGTOKEN2_TokensAreOpaqueAndStrong(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Unproven("plugin")))
	seen := map[string]bool{}
	var first []byte
	varies := make([]bool, 32)
	for range 20 {
		resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("plugin")))
		if err != nil {
			t.Fatal(err)
		}
		token := resp.Msg.GetRuntimeToken()
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || len(raw) != 32 {
			t.Fatalf("token %q is not base64url of 32 bytes", token)
		}
		if seen[token] || strings.Contains(token, "plugin") || strings.Contains(resp.Msg.GetRuntimeId(), token) {
			t.Fatalf("token %q repeats or tells something", token)
		}
		seen[token] = true
		if first == nil {
			first = raw
		}
		for i := range raw {
			varies[i] = varies[i] || raw[i] != first[i]
		}
	}
	if i := slices.Index(varies, false); i >= 0 {
		t.Errorf("byte %d of every token is the same", i)
	}
}

func TestAudit_PROTO22_RuntimeIDsAreSanitisedAndRandom(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Unproven("My.Plugin_X")))
	shape := regexp.MustCompile(`^[a-z0-9-]{1,48}-[a-z0-9]{26,}$`)
	seen := map[string]bool{}
	for range 20 {
		resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("My.Plugin_X")))
		if err != nil {
			t.Fatal(err)
		}
		id := resp.Msg.GetRuntimeId()
		if !shape.MatchString(id) || seen[id] {
			t.Fatalf("runtime id %q is not well-formed or repeats", id)
		}
		seen[id] = true
	}
	for _, selfID := range []string{"../../etc", "a b", "a\nb", "a/b", strings.Repeat("a", 129), "ä"} {
		_, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest(selfID)))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("self id %q: %v, want invalid_argument", selfID, err)
		}
	}
}

// No handshake, and no sequence of them, obtains another instance's runtime id or
// kills its token.
func TestAudit_H03_HandshakesCannotTakeAnIdentity(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Unproven("victim", "attacker")))
	enrol := func(selfID string, credential ...string) (*connectpluginv1.HandshakeResponse, error) {
		req := connect.NewRequest(hosttest.OldRequest(selfID))
		if len(credential) == 2 {
			req = hosttest.WithCredentials(hosttest.OldRequest(selfID), credential[0], credential[1])
		}
		resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), req)
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	victim, err := enrol("victim")
	if err != nil {
		t.Fatal(err)
	}
	attacker, err := enrol("attacker")
	if err != nil {
		t.Fatal(err)
	}
	attempts := map[string][]string{
		"the victim's id with a made-up token":      {victim.GetRuntimeId(), "AAAA"},
		"the victim's id with the attacker's token": {victim.GetRuntimeId(), attacker.GetRuntimeToken()},
		"the victim's id with an empty token":       {victim.GetRuntimeId(), ""},
	}
	for name, credential := range attempts {
		for _, selfID := range []string{"victim", "attacker"} {
			if got, err := enrol(selfID, credential...); err == nil {
				t.Errorf("%s, as %s: got identity %s", name, selfID, got.GetRuntimeId())
			}
		}
	}
	// A valid renewal cannot change its self id, and a fresh handshake never
	// meets the victim's id.
	if got, err := enrol("victim", attacker.GetRuntimeId(), attacker.GetRuntimeToken()); err == nil {
		t.Errorf("renewal under another self id: %v", got.GetRuntimeId())
	}
	for range 50 {
		got, err := enrol("victim")
		if err != nil {
			t.Fatal(err)
		}
		if got.GetRuntimeId() == victim.GetRuntimeId() {
			t.Fatal("a stranger got the victim's runtime id")
		}
	}
	if code := hosttest.ReportAs(t, host, victim.GetRuntimeId(), victim.GetRuntimeToken()); code != 0 {
		t.Errorf("the victim's token died: %v", code)
	}
	// The honest renewal keeps the id, and the old token lives for its grace.
	renewed, err := enrol("victim", victim.GetRuntimeId(), victim.GetRuntimeToken())
	if err != nil || renewed.GetRuntimeId() != victim.GetRuntimeId() || renewed.GetRuntimeToken() == victim.GetRuntimeToken() {
		t.Fatalf("renewal: %v, %v", renewed, err)
	}
	for _, token := range []string{victim.GetRuntimeToken(), renewed.GetRuntimeToken()} {
		if code := hosttest.ReportAs(t, host, victim.GetRuntimeId(), token); code != 0 {
			t.Errorf("after the renewal: %v", code)
		}
	}
}

func TestAudit_PROTO34_RepeatByTheSameInstanceKeepsItsID(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	c := host.Enrol(t, "api", hosttest.Requiring("logger"))
	id, token := c.RuntimeID(), c.RuntimeToken()
	for range 3 {
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if c.RuntimeID() != id || c.RuntimeToken() == token {
		t.Errorf("runtime id %s became %s", id, c.RuntimeID())
	}
	if other := host.Enrol(t, "api", nil); other.RuntimeID() == id {
		t.Error("another instance got the same runtime id")
	}
}

// The runtime id in the header selects the record and the token proves it:
// neither another spelling, nor a second header, nor another's token gets through.
func TestAudit_H01_HeadersDoNotChooseTheCaller(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	api, logger := host.Enrol(t, "api", nil), host.Enrol(t, "logger", nil)
	for name, header := range map[string]http.Header{
		"no credentials":   {},
		"id alone":         {"X-Plugin-Runtime-Id": {api.RuntimeID()}},
		"token alone":      {"Authorization": {"Bearer " + api.RuntimeToken()}},
		"another's token":  {"X-Plugin-Runtime-Id": {api.RuntimeID()}, "Authorization": {"Bearer " + logger.RuntimeToken()}},
		"two ids":          {"X-Plugin-Runtime-Id": {api.RuntimeID(), logger.RuntimeID()}, "Authorization": {"Bearer " + api.RuntimeToken()}},
		"two tokens":       {"X-Plugin-Runtime-Id": {api.RuntimeID()}, "Authorization": {"Bearer " + api.RuntimeToken(), "Bearer " + logger.RuntimeToken()}},
		"basic credential": {"X-Plugin-Runtime-Id": {api.RuntimeID()}, "Authorization": {"Basic " + api.RuntimeToken()}},
		"token with space": {"X-Plugin-Runtime-Id": {api.RuntimeID()}, "Authorization": {"Bearer  " + api.RuntimeToken()}},
		"joined ids":       {"X-Plugin-Runtime-Id": {api.RuntimeID() + "," + logger.RuntimeID()}, "Authorization": {"Bearer " + api.RuntimeToken()}},
	} {
		for protocol, contentType := range map[string]string{"connect": "application/proto", "grpc": "application/grpc", "grpc-web": "application/grpc-web+proto"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
				host.URL+connectpluginv1connect.ServiceRegistryDiscoverServiceProcedure, strings.NewReader("\x00\x00\x00\x00\x00"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = header.Clone()
			req.Header.Set("Content-Type", contentType)
			resp, err := host.Stranger(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body) // the trailers come after it
			_ = resp.Body.Close()
			refused := resp.StatusCode == http.StatusUnauthorized || resp.Header.Get("Grpc-Status") == "16" ||
				resp.Trailer.Get("Grpc-Status") == "16" || strings.Contains(string(body), "grpc-status: 16")
			if err != nil || !refused {
				t.Errorf("%s over %s: %d %v %q %v", name, protocol, resp.StatusCode, resp.Header, body, err)
			}
		}
	}
	if code := hosttest.ReportAs(t, host, api.RuntimeID(), api.RuntimeToken()); code != 0 {
		t.Errorf("the honest caller: %v", code)
	}
}
