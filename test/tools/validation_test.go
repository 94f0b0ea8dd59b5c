package tools_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// validNames and invalidNames hold for self ids and service types alike.
var (
	validNames = []string{
		"a", "7", "kv", "My-Plugin", "logger.v1", "a_b", "a..b", "a-", "A.B-C_9", strings.Repeat("x", connectplugin.MaxSelfIDLen),
	}
	invalidNames = []string{
		"", ".", "..", "...", "-a", "_a", ".a", "a/b", "a\\b", "a b", "a\n", "a\x00", "a%2e", "a?", "a#", "é", "a\u200b", "\u0430",
		"a:b", "a@b", strings.Repeat("x", connectplugin.MaxSelfIDLen+1),
	}
)

func TestAudit_PROTO21_PROTO22_Names(t *testing.T) {
	t.Parallel()
	checks := map[string]func(string) error{
		"self id": connectplugin.ValidateSelfID, "service type": connectplugin.ValidateServiceType,
	}
	for field, check := range checks {
		for _, name := range validNames {
			if err := check(name); err != nil {
				t.Errorf("%s %q: %v", field, name, err)
			}
		}
		for _, name := range invalidNames {
			wantTextError(t, check(name), field, name)
		}
	}
}

// wantTextError fails unless err names the field, repeats nothing that forges a
// log line, and is short.
func wantTextError(t *testing.T, err error, field, input string) {
	t.Helper()
	const maxLen = 256
	if err == nil {
		t.Errorf("%s %q is accepted", field, input)
		return
	}
	msg := err.Error()
	if len(input) > maxLen && strings.Contains(msg, input[:maxLen/2]) {
		t.Errorf("%s: the error repeats too much: %q", field, msg)
	}
	forges := func(r rune) bool { return r < ' ' || (r > '~' && r != '…') }
	if !strings.HasPrefix(msg, field) || len(msg) > maxLen+4*64 || strings.ContainsFunc(msg, forges) {
		t.Errorf("%s %q: the error is %q", field, input, msg)
	}
}

func TestValidateVersion(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"1.2.3", "0.0.0", "1.10.0-rc.1+build.5", "v1.2.3", "1.2", "1"} {
		if err := connectplugin.ValidateVersion(v); err != nil {
			t.Errorf("%q: %v", v, err)
		}
	}
	for _, v := range []string{
		"", "one", "1.2.3.4", ">=1.0", "1.x", "1.2.3 ", " 1.2.3", "1.2.3\n", "-1.0.0", "1.2.3-", "1.0.0-é", "01.2.3-rc..1",
		"1.2.3-" + strings.Repeat("x", connectplugin.MaxVersionLen), "99999999999999999999.0.0",
	} {
		wantTextError(t, connectplugin.ValidateVersion(v), "version", v)
	}
}

var (
	validPaths = []string{
		"/", "/a", "/a/", "/logger.v1.Logger/", "/api/v1/x-y_z~", "/a.b/..c/c..", "/...", "/.well-known/x", "/p@1:2,3+4=5/$&'()*!",
		"/" + strings.Repeat("x", 1023),
	}
	invalidPaths = []string{
		"", "a", "a/b", "//", "//a", "/a//b", "/a//", "/.", "/..", "/./a", "/a/.", "/a/./b", "/../a", "/a/../b", "/a/..", "/a/../",
		"/a%2fb", "/a%2e%2e/", "/%", "/a?b", "/a?", "/a#b", "/a#", "/a;b", "/..;/a", "/a\\b", "\\a", "/a b", "/ ", "/a\t", "/a\n",
		"/a\r\nX: y", "/a\x00", "/a\x7f", "/é", "/a\u2024\u2024/b", "/\xff", "/a<b>", "/\"", "/{a}", "/a|b", "/^", "/`", "/[a]",
		"https://evil/", "/" + strings.Repeat("long/", 100) + "?", "/" + strings.Repeat("x", 1024),
	}
)

func TestAudit_PROTO23_EndpointPaths(t *testing.T) {
	t.Parallel()
	for _, p := range validPaths {
		if err := connectplugin.ValidateEndpointPath(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
		wantPathSurvives(t, p)
	}
	for _, p := range invalidPaths {
		wantTextError(t, connectplugin.ValidateEndpointPath(p), "endpoint path", p)
	}
}

// wantPathSurvives fails unless every reader of paths leaves p as it is: a
// router joins it with a base URL, a client sends it, a server reads it.
func wantPathSurvives(t *testing.T, p string) {
	t.Helper()
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	u, err := url.Parse("https://plugin.test" + p)
	if err != nil || clean != p || u.Path != p || u.Host != "plugin.test" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		t.Fatalf("%q is cleaned to %q, parsed to %+v, %v", p, clean, u, err)
	}
	joined, err := url.JoinPath("https://plugin.test/base", p)
	if err != nil || joined != "https://plugin.test/base"+p {
		t.Fatalf("%q is joined to %q, %v", p, joined, err)
	}
	seen := ""
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { seen = r.URL.Path })
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "https://plugin.test"+p, http.NoBody))
	if seen != p || rec.Code != http.StatusOK {
		t.Fatalf("%q is served as %q with %d", p, seen, rec.Code)
	}
}

func metadataEntries(n, keyLen, valueLen int) map[string]string {
	m := map[string]string{}
	for i := range n {
		key := fmt.Sprintf("%03d", i)
		m[key+strings.Repeat("k", max(0, keyLen-len(key)))] = strings.Repeat("v", valueLen)
	}
	return m
}

func TestAudit_PROTO71_REG7_Metadata(t *testing.T) {
	t.Parallel()
	valid := map[string]map[string]string{
		"nil": nil, "empty": {}, "text": {"description": "Schlüssel–Wert 🔑", "base_url": "https://127.0.0.1:1/", "zone": ""},
		"count": metadataEntries(connectplugin.MaxMetadataEntries, 3, 5), "key": metadataEntries(1, connectplugin.MaxMetadataKeyLen, 1),
		"value": metadataEntries(1, 3, connectplugin.MaxMetadataValueLen), "total": metadataEntries(16, 96, 4000),
		"like a reserved one": {"runtime": "x", "connectplugin": "x", "my-authorization": "x"},
	}
	for name, m := range valid {
		if err := connectplugin.ValidateMetadata(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	invalid := map[string]map[string]string{
		"count": metadataEntries(connectplugin.MaxMetadataEntries+1, 3, 0), "key": metadataEntries(1, connectplugin.MaxMetadataKeyLen+1, 1),
		"value": metadataEntries(1, 3, connectplugin.MaxMetadataValueLen+1), "total": metadataEntries(17, 3, connectplugin.MaxMetadataValueLen),
		"empty key": {"": "x"}, "newline in key": {"a\nb": "x"}, "space in key": {"a b": "x"}, "DEL in key": {"a\x7f": "x"},
		"non-ASCII key": {"é": "x"}, "bytes in key": {"\xff": "x"},
	}
	for _, v := range []string{"\n", "\r", "\t", "\x00", "\x1b[31m", "\x7f", "\u0085", "\u2028", "\u2029", "\u202e", "\u2066", "\xff", "a\xc3"} {
		invalid[fmt.Sprintf("value %+q", v)] = map[string]string{"k": "x" + v}
	}
	for _, k := range []string{
		"authorization", "Authorization", "COOKIE", "runtime_id", "Runtime_Token", "connectplugin.policy", "ConnectPlugin.x",
		"x-plugin-runtime-id", "X-Plugin-Caller-ID",
	} {
		invalid["reserved "+k] = map[string]string{k: "x"}
	}
	for name, m := range invalid {
		if err := connectplugin.ValidateMetadata(m); err == nil {
			t.Errorf("%s is accepted", name)
		} else {
			wantTextError(t, err, "metadata", name)
		}
	}
}

func FuzzValidateEndpointPath(f *testing.F) {
	for _, p := range slices.Concat(validPaths, invalidPaths) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if err := connectplugin.ValidateEndpointPath(p); err != nil {
			wantTextError(t, err, "endpoint path", p)
			return
		}
		wantPathSurvives(t, p)
	})
}

func FuzzValidateNames(f *testing.F) {
	for _, n := range slices.Concat(validNames, invalidNames) {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, name string) {
		err := connectplugin.ValidateServiceType(name)
		if (err == nil) != (connectplugin.ValidateSelfID(name) == nil) {
			t.Fatalf("%q: the two rules differ", name)
		}
		if err != nil {
			return
		}
		// As a segment of a route it stays one.
		if u, err := url.Parse("/services/" + name + "/x"); err != nil || path.Clean(u.Path) != "/services/"+name+"/x" || u.RawPath != "" {
			t.Fatalf("%q does not survive in a route: %v", name, err)
		}
		if url.PathEscape(name) != name || len(name) > connectplugin.MaxServiceTypeLen {
			t.Fatalf("%q is accepted", name)
		}
	})
}

func FuzzValidateVersion(f *testing.F) {
	for _, v := range []string{"1.2.3", "v1", "1.2.3-rc.1+b", "", ">=1", "1.2.3.4", "01.1.1"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if err := connectplugin.ValidateVersion(v); err != nil {
			wantTextError(t, err, "version", v)
			return
		}
		odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/\\%?#<>=^*,|", r) }
		if len(v) > connectplugin.MaxVersionLen || strings.ContainsFunc(v, odd) {
			t.Fatalf("%q is accepted", v)
		}
	})
}

func FuzzValidateMetadata(f *testing.F) {
	f.Add("key", "value", "other", "x")
	f.Add("authorization", "v", "k", "\n")
	f.Add("", "", "é", "\xff")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		m := map[string]string{k1: v1, k2: v2}
		before := maps.Clone(m)
		err := connectplugin.ValidateMetadata(m)
		if !maps.Equal(m, before) {
			t.Fatal("the map changed")
		}
		if err != nil {
			wantTextError(t, err, "metadata", k1+v1+k2+v2)
			return
		}
		for k, v := range m {
			bad := func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == '\u202e' }
			if k == "" || strings.ContainsFunc(k, bad) || strings.ContainsFunc(v, bad) || !utf8.ValidString(v) || strings.ContainsAny(k, " \t") ||
				strings.EqualFold(k, "authorization") || len(k) > connectplugin.MaxMetadataKeyLen || len(v) > connectplugin.MaxMetadataValueLen {
				t.Fatalf("%q: %q is accepted", k, v)
			}
		}
	})
}
