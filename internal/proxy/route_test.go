package proxy_test

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// targets maps request targets, as they stand in the request line, to the route
// that they name; the zero Route means none.
var targets = map[string]proxy.Route{
	"/services/logger/abc-1/log.v1.Log/Write":        {Type: "logger", Provider: "abc-1", Rest: "/log.v1.Log/Write"},
	"/services/logger/abc-1/log.v1.Log/":             {Type: "logger", Provider: "abc-1", Rest: "/log.v1.Log/"},
	"/services/logger/abc-1/x?message=%7B%2e%2e%7D":  {Type: "logger", Provider: "abc-1", Rest: "/x"},
	"/services/com.example.A/b/x/services/other/c/d": {Type: "com.example.A", Provider: "b", Rest: "/x/services/other/c/d"},
	"/services/a/b/~x/$y/z@1:2,3+4=5&6":              {Type: "a", Provider: "b", Rest: "/~x/$y/z@1:2,3+4=5&6"},
	"/services/a/b/...":                              {Type: "a", Provider: "b", Rest: "/..."},
	"/services/a/b":                                  {},
	"/services/a/b/":                                 {},
	"/services/a":                                    {},
	"/services/":                                     {},
	"/services":                                      {},
	"/service/a/b/c":                                 {},
	"/":                                              {},
	"*":                                              {},
	"/services//b/c":                                 {},
	"/services/a//c":                                 {},
	"/services/a/b//c":                               {},
	"/services/a/b/c//":                              {},
	"/services/a/b/../c":                             {},
	"/services/a/b/./c":                              {},
	"/services/a/b/c/..":                             {},
	"/services/a/b/c/.":                              {},
	"/services/../b/c":                               {},
	"/services/a/b/%2e%2e/c":                         {},
	"/services/a/b/%2E./c":                           {},
	"/services/a/b/c%2fd":                            {},
	"/services/a%2fb/c":                              {},
	"/services/a/b/c%5cd":                            {},
	"/services/a/b/c%3fd":                            {},
	"/services/a/b/c%23d":                            {},
	"/services/a/b/c%20d":                            {},
	"/services/a/b/%21":                              {},
	"/services/a/b/!":                                {},
	"/services/a/b/%24":                              {},
	"/services/a/b/%41":                              {},
	"/services/a/b/c%0d%0aX":                         {},
	"/services/a/b/c%00":                             {},
	"/services/a/b/c%c3%bc":                          {},
	"/services/a/b/c%252e":                           {},
	`/services/a/b/c\d`:                              {},
	"/services/a/b/c#d":                              {},
	"/services/a/b/..;/c":                            {},
	"/services/a/b/c;v=1":                            {},
	"/services/a/b/c|d":                              {},
	"/services/a/b/c?q=a b":                          {},
	"/services/a/b/c?q=\u00fc":                       {},
	"/services/a/b/c?q=#":                            {},
	"/services/a/b/\u00fc":                           {},
	"https://other.example/services/a/b/c":           {Type: "a", Provider: "b", Rest: "/c"}, // the absolute form
}

func TestAudit_H30_RouteParsing(t *testing.T) {
	t.Parallel()
	for target, want := range targets {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			if want != (proxy.Route{}) {
				t.Errorf("%q: %v", target, err)
			}
			continue
		}
		got, err := proxy.ParseRoute(u)
		if got != want || (err == nil) != (want != proxy.Route{}) || err != nil && !errors.Is(err, proxy.ErrPath) {
			t.Errorf("%q: %+v, %v; want %+v", target, got, err, want)
		}
	}
}

// FuzzParseRoute compares with the plain reading of a request target: split at
// slashes, with nothing decoded and nothing cleaned.
func FuzzParseRoute(f *testing.F) {
	for target := range targets {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Scheme != "" && u.Host == "" {
			return
		}
		route, err := proxy.ParseRoute(u)
		if err != nil {
			return
		}
		raw, _, _ := strings.Cut(target, "?")
		if u.Host != "" {
			_, raw, _ = strings.Cut(raw, "//")
			_, raw, _ = strings.Cut(raw, "/")
			raw = "/" + raw
		}
		parts := strings.SplitN(raw, "/", 5)
		if len(parts) != 5 || parts[0] != "" || parts[1] != "services" ||
			parts[2] != route.Type || parts[3] != route.Provider || "/"+parts[4] != route.Rest {
			t.Fatalf("%q: %+v", target, route)
		}
		if strings.ContainsAny(raw, "%\\#; \t\r\n\x00") || path.Clean(raw) != strings.TrimSuffix(raw, "/") {
			t.Fatalf("%q is not clean: %+v", target, route)
		}
		joined, err := proxy.JoinPath("/base/path/", route.Rest)
		if err != nil || !strings.HasPrefix(path.Clean(joined)+"/", "/base/path/") {
			t.Fatalf("%q joined to %q, %v", target, joined, err)
		}
		if _, err := http.NewRequest(http.MethodPost, "https://provider"+joined, nil); err != nil {
			t.Fatalf("%q is no request target: %v", joined, err)
		}
	})
}

func TestAudit_PROTO23_CheckPath(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"/", "/a", "/a/", "/a/b.v1.C/", "/a-b_c~d/...", "/.a", "/a.."} {
		if err := proxy.CheckPath(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	bad := []string{
		"", "a", "a/b", "//", "//a", "/a//b", "/a//", "/.", "/..", "/a/.", "/a/../b", "/a/./b", "/%2e", "/a%2Fb", "/a?b", "/a#b", `/a\b`,
		"/a b", "/a\tb", "/a\nb", "/a\x00", "/a\x7f", "/\u00e4", "/\xff", "/a;b", "/<a>", "http://a/b",
	}
	for _, p := range bad {
		if err := proxy.CheckPath(p); !errors.Is(err, proxy.ErrPath) {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestAudit_H28_JoinPath(t *testing.T) {
	t.Parallel()
	tests := []struct{ registered, rest, want string }{
		{registered: "/log.v1.Log/", rest: "/log.v1.Log/Write", want: "/log.v1.Log/Write"},
		{registered: "/log.v1.Log", rest: "/log.v1.Log/Write", want: "/log.v1.Log/Write"},
		{registered: "/log.v1.Log/", rest: "/log.v1.Log", want: "/log.v1.Log"},
		{registered: "/log.v1.Log/", rest: "/Write", want: "/log.v1.Log/Write"},
		{registered: "/log.v1.Log", rest: "/log.v1.Logs/Write", want: "/log.v1.Log/log.v1.Logs/Write"},
		{registered: "/", rest: "/a/b", want: "/a/b"},
		{registered: "", rest: "/a/b", want: "/a/b"},
		{registered: "/a", rest: "/a/../b"},
		{registered: "/a", rest: "b"},
		{registered: "/a/../b", rest: "/b"},
		{registered: "a", rest: "/b"},
	}
	for _, test := range tests {
		got, err := proxy.JoinPath(test.registered, test.rest)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q and %q: %q, %v; want %q", test.registered, test.rest, got, err, test.want)
		}
	}
}
