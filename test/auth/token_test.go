package auth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// The handler of a token is known by Token alone too, compared in constant time;
// that it is constant cannot be measured here, so the rule is: digests only.
func TestAudit_AUTH004_AUTH005_AUTH011_SharedToken(t *testing.T) {
	t.Parallel()
	const secret = "correct horse battery staple?no-spaces"
	tests := []struct {
		name, server, presented string
		want                    bool
	}{
		{"same", "s3cret", "s3cret", true},
		{"longer", "s3cret", "s3cretx", false},
		{"shorter", "s3cret", "s3cre", false},
		{"other", "s3cret", "S3cret", false},
		{"nothing configured", "", "anything", false},
		{"unsendable", secret, secret, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := hosttest.StartTLS(t, (&echo.Whoami{}).Handler(connectplugin.AuthInterceptor(connectplugin.NewAPIKeyAuth(tt.server, nil))))
			got, err := echo.AskUnary(t.Context(), srv.Client(), srv.URL, http.Header{"X-Api-Key": {tt.presented}})
			if !tt.want {
				wantAuthRefused(t, err)
				return
			}
			echo.WantAnswer(t, got, err, "token:shared-token")
		})
	}
}

func TestTokenAuth_HeaderAndPrefix(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		header, pre   string
		sent, content string
		want          string // the token, "" = refused
	}{
		{"zero value", "", "", "Authorization", "Bearer t", "t"},
		{"authorization without prefix", "Authorization", "", "Authorization", "t", "t"},
		{"own header", "x-my-token", "", "X-My-Token", "t", "t"},
		{"own scheme", "Authorization", "Plugin ", "Authorization", "plugin t", "t"},
		{"own scheme, other sent", "Authorization", "Plugin ", "Authorization", "Bearer t", ""},
		{"scheme as a part of a word", "Authorization", "Bear ", "Authorization", "Bearer t", ""},
		{"literal prefix", "X-K", "sk-", "X-K", "sk-t", "t"},
		{"literal prefix in other case", "X-K", "sk-", "X-K", "SK-t", ""},
		{"literal prefix only", "X-K", "sk-", "X-K", "sk-", ""},
		{"control character", "", "", "Authorization", "Bearer t\x01", ""},
		{"non-ASCII", "", "", "Authorization", "Bearer té", ""},
		{"blanks around", "", "", "Authorization", "  Bearer  t ", "t"},
		{"two tokens", "", "", "Authorization", "Bearer t t", ""},
		{"token68", "", "", "Authorization", "Bearer aZ09-._~+/==", "aZ09-._~+/=="},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			auth := &connectplugin.TokenAuth{Header: tt.header, Prefix: tt.pre, ValidateToken: authNameToken}
			got, err := authPresentToken(auth, tt.sent, tt.content)
			if tt.want == "" {
				wantAuthRefused(t, err)
				return
			}
			echo.WantAnswer(t, got, err, tt.want)
		})
	}
}

// authNameToken makes the token the identity.
func authNameToken(token string) (string, map[string]string, error) { return token, nil, nil }

// authPresentToken runs the provider's server interceptor on a header, without the
// wire, which would not carry every text, and returns the identity.
func authPresentToken(auth connectplugin.AuthProvider, name string, values ...string) (string, error) {
	identity := ""
	run := auth.ServerInterceptor()(func(ctx context.Context, _ connect.AnyRequest) (connect.AnyResponse, error) {
		identity = connectplugin.GetAuthContext(ctx).Identity
		return connect.NewResponse(&emptypb.Empty{}), nil
	})
	req := connect.NewRequest(&emptypb.Empty{})
	for _, v := range values {
		req.Header().Add(name, v)
	}
	_, err := run(context.Background(), req)
	return identity, err
}

// No form of a configuration shows its token.
func TestTokenAuth_HidesItsToken(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter2"
	token, key := connectplugin.NewTokenAuth(secret, nil), connectplugin.NewAPIKeyAuth(secret, nil)
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	for _, v := range []any{token, *token, key, *key, struct{ A connectplugin.AuthProvider }{token}, []any{key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, secret) || strings.Contains(got, fmt.Sprintf("%x", secret)) ||
				strings.Contains(got, fmt.Sprintf("%X", secret)) {
				t.Errorf("%s of %T shows it: %s", verb, v, got)
			}
		}
		logger.Info("m", "v", v)
		if out, err := json.Marshal(v); err == nil && bytes.Contains(out, []byte(secret)) {
			t.Errorf("JSON of %T shows it: %s", v, out)
		}
	}
	log.Reset()
	logger.Info("m", "v", key)
	if !strings.Contains(log.String(), "X-Api-Key") || !strings.Contains(log.String(), "[redacted]") {
		t.Errorf("the log tells nothing: %s", log.String())
	}
	logger.Info("m", "v", key.String(), "w", token.GoString())
	if strings.Contains(log.String(), secret) {
		t.Errorf("the log shows it: %s", log.String())
	}
	if got := fmt.Sprintf("%v", any(token)); !strings.Contains(got, "[redacted]") {
		t.Errorf("%%v tells nothing: %s", got)
	}
}

func FuzzTokenAuth(f *testing.F) {
	for _, seed := range []string{
		"Bearer t", "bearer  t", "Bearer", "Bearer\tt", "Bearer t, Bearer u", "Basic t", "", " ", "Bearert",
		"Bearer t\x00", "Bearer é", "BEARER aZ09-._~+/==",
	} {
		f.Add(seed, seed, false)
	}
	auth := &connectplugin.TokenAuth{ValidateToken: authNameToken}
	f.Fuzz(func(t *testing.T, value, second string, repeat bool) {
		values := []string{value}
		if repeat {
			values = append(values, second)
		}
		token, err := authPresentToken(auth, "Authorization", values...)
		if err != nil {
			wantAuthRefused(t, err)
			return
		}
		// An oracle that reads the header in another way.
		fields := strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == '\t' })
		if repeat || len(fields) != 2 || !strings.EqualFold(fields[0], "bearer") || fields[1] != token {
			t.Fatalf("accepted %q as the token of %q", token, values)
		}
		for _, r := range token {
			if r <= ' ' || r > '~' || r == ',' {
				t.Fatalf("token %q has %q", token, r)
			}
		}
	})
}

// A token of a file with a byte order mark cannot be sent, and the error says so without the token.
func TestTokenAuth_AByteOrderMark(t *testing.T) {
	t.Parallel()
	const mark, token = "\xef\xbb\xbf", "hunter2-hunter2"
	run := connectplugin.NewTokenAuth(mark+token, nil).ClientInterceptor()(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		t.Error("it is sent")
		return connect.NewResponse(&emptypb.Empty{}), nil
	})
	_, err := run(t.Context(), connect.NewRequest(&emptypb.Empty{}))
	if err == nil || !strings.Contains(err.Error(), "TokenAuth.Token: it begins with a byte order mark") || strings.Contains(err.Error(), token) {
		t.Error(err)
	}
}
