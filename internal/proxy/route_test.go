package proxy_test

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"regexp"
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
	"/services/a/b/!":                                {Type: "a", Provider: "b", Rest: "/!"},
	"/services/a/b/x!/%21":                           {},
	"/services/a'(b)*!/b/c":                          {Type: "a'(b)*!", Provider: "b", Rest: "/c"},
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

// Grammar of the request target of a routed call, for the fuzz target: what may
// stand before the path in the absolute form, a segment, and a query.
var (
	absoluteForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://[^/?]*`)
	routeTarget  = regexp.MustCompile(`^/services/([^/?]+)/([^/?]+)((?:/[^/?]+)+/?)(?:\?[!"\x24-\x7e]*)?$`)
	cleanSegment = regexp.MustCompile(`^[A-Za-z0-9._~!$&'()*+,=:@-]+$`)
)

// readRoute is another reading of a request target, from its bytes alone: nothing is
// decoded. It reports false for what names no route.
func readRoute(target string) (proxy.Route, bool) {
	m := routeTarget.FindStringSubmatch(strings.TrimPrefix(target, absoluteForm.FindString(target)))
	if m == nil {
		return proxy.Route{}, false
	}
	raw, _, _ := strings.Cut(m[1]+"/"+m[2]+m[3], "?")
	for segment := range strings.SplitSeq(strings.TrimSuffix(raw, "/"), "/") {
		if !cleanSegment.MatchString(segment) || segment == "." || segment == ".." {
			return proxy.Route{}, false
		}
	}
	return proxy.Route{Type: m[1], Provider: m[2], Rest: m[3]}, true
}

// FuzzParseRoute compares with a reading by another grammar, in both directions:
// what is a route and what is none, and which; and where it goes on the provider.
func FuzzParseRoute(f *testing.F) {
	for target := range targets {
		for _, registered := range []string{"/base/path/", "/x?", "/"} {
			f.Add(target, registered)
		}
	}
	f.Fuzz(func(t *testing.T, target, registered string) {
		want, ok := readRoute(target)
		u, err := url.ParseRequestURI(target)
		if err != nil {
			if ok && target[0] == '/' {
				t.Fatalf("%q: %v, want %+v", target, err, want)
			}
			return
		}
		route, err := proxy.ParseRoute(u)
		if route != want || (err == nil) != ok || err != nil && !errors.Is(err, proxy.ErrPath) {
			t.Fatalf("%q: %+v, %v; want %+v, %v", target, route, err, want, ok)
		}
		if ok {
			checkJoin(t, registered, route.Rest)
		}
	})
}

// checkJoin demands that a path stays below the one that was registered, however a
// server reads it.
func checkJoin(t *testing.T, registered, rest string) {
	t.Helper()
	base := strings.TrimSuffix(registered, "/")
	_, clean := readRoute("/services/a/b" + base + "/c") // as a path of its own
	joined, err := proxy.JoinPath(registered, rest)
	if (err == nil) != (registered == "" || clean && registered[0] == '/' && !strings.Contains(registered, "?")) {
		t.Fatalf("%q and %q: %q, %v", registered, rest, joined, err)
	}
	if err != nil {
		return
	}
	if joined != rest && joined != base+rest || joined != base && !strings.HasPrefix(joined, base+"/") || path.Clean(joined) != strings.TrimSuffix(joined, "/") {
		t.Fatalf("%q and %q: %q", registered, rest, joined)
	}
	req, err := http.NewRequest(http.MethodPost, "https://provider"+joined, nil)
	if err != nil || req.URL.RequestURI() != joined || req.URL.Host != "provider" {
		t.Fatalf("%q is another request target: %v, %v", joined, req, err)
	}
}

func TestAudit_PROTO23_CheckPath(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"/", "/a", "/a/", "/a/b.v1.C/", "/a-b_c~d/...", "/.a", "/a..", "/p@1:2,3+4=5/$&'()*!"} {
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
