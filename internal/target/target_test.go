package target_test

import (
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/target"
)

func tcp(address string) net.Addr {
	addr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		panic(err)
	}
	return addr
}

func TestNames(t *testing.T) {
	t.Parallel()
	leaf := &x509.Certificate{DNSNames: []string{"cert.example", "*.wild.example"}, IPAddresses: []net.IP{net.ParseIP("10.0.0.7")}}
	for name, tt := range map[string]struct {
		names *target.Names
		shown *x509.Certificate
		known []string
		not   []string
	}{
		"configured": {
			target.NewNames([]string{"Host.Example.", "10.0.0.1"}, tcp("127.0.0.1:1")), leaf,
			[]string{"host.example", "HOST.example:8443", "host.example.", "10.0.0.1:443", "[::ffff:10.0.0.1]:443"},
			[]string{"", ":8443", "cert.example", "127.0.0.1", "localhost", "x.host.example", "host.example.evil"},
		},
		"certificate": {
			target.NewNames(nil, nil), leaf,
			[]string{"cert.example", "CERT.example:1", "a.wild.example", "10.0.0.7:443"},
			[]string{"", "wild.example", "a.b.wild.example", "10.0.0.8", "localhost"},
		},
		"loopback": {
			target.NewNames(nil, tcp("127.0.0.1:8443")), nil,
			[]string{"127.0.0.1:8443", "127.0.0.1", "localhost:1", "LOCALHOST"},
			[]string{"", "127.0.0.2", "[::1]:8443", "host"},
		},
		"loopback, IPv6": {
			target.NewNames(nil, tcp("[::1]:8443")), nil,
			[]string{"[::1]:8443", "[::1]", "localhost"},
			[]string{"127.0.0.1", "[::2]:8443"},
		},
		"IPv6 with a zone": {
			target.NewNames(nil, &net.TCPAddr{IP: net.ParseIP("fe80::2"), Port: 8443, Zone: "lo"}), leaf,
			[]string{"[fe80::2]:8443", "[fe80::2%lo]:8443", "[FE80::2%other]", "[fe80:0:0:0:0:0:0:2]:1"},
			[]string{"localhost", "[fe80::3%lo]:8443", "fe80::2%", "[%lo]"},
		},
		"IPv4 in IPv6": {
			target.NewNames([]string{"::ffff:10.0.0.1"}, nil), nil,
			[]string{"10.0.0.1:8443", "[::ffff:10.0.0.1]:8443", "[::ffff:a00:1]"},
			[]string{"[::10.0.0.1]", "10.0.0.2"},
		},
		"another address": {target.NewNames(nil, tcp("10.1.1.1:1")), nil, []string{"10.1.1.1"}, []string{"localhost"}},
		"nothing":         {target.NewNames(nil, nil), nil, nil, []string{"", "localhost", "127.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, authority := range tt.known {
				if !tt.names.Known(authority, tt.shown) {
					t.Errorf("%q is not known", authority)
				}
			}
			for _, authority := range tt.not {
				if tt.names.Known(authority, tt.shown) {
					t.Errorf("%q is known", authority)
				}
			}
		})
	}
}

func TestSameOrigin(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		origins        []string
		tls, plaintext bool
	}{
		"none":          {nil, true, true},
		"own":           {[]string{"https://host:1"}, true, true},
		"own, in plain": {[]string{"http://host:1"}, false, true},
		"other":         {[]string{"https://evil"}, false, false},
		"other port":    {[]string{"https://host:2"}, false, false},
		"null":          {[]string{"null"}, false, false},
		"two":           {[]string{"https://host:1", "https://evil"}, false, false},
		"empty":         {[]string{""}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://host:1/x", http.NoBody)
			r.Header["Origin"] = tt.origins
			if got := target.SameOrigin(r, false); got != tt.tls {
				t.Errorf("over TLS: %t", got)
			}
			if got := target.SameOrigin(r, true); got != tt.plaintext {
				t.Errorf("in plaintext: %t", got)
			}
		})
	}
}

var uris = map[string]bool{
	"/": true, "/a.v1.S/Get": true, "/services/t/p/a.v1.S/Get": true, "/a?x=/../y%2F": true, "/a/": true, "/a'(b)*!": true,
	"": false, "a": false, "//a": false, "/a//b": false, "/a/../b": false, "/./a": false, "/a%2Fb": false, "/a%41": false, "/a%21": false,
	"/a\\b": false, "/a;b": false, "/ä": false, "/a#b": false, "/a\x00": false, "*": false,
}

func request(method, uri string) *http.Request {
	u, err := url.ParseRequestURI(uri)
	if err != nil {
		u = &url.URL{Path: uri}
	}
	return &http.Request{Method: method, URL: u, RequestURI: uri}
}

func TestCleanPath(t *testing.T) {
	t.Parallel()
	for uri, want := range uris {
		if got := target.CleanPath(request(http.MethodPost, uri)); got != want {
			t.Errorf("%q: clean %t", uri, got)
		}
	}
	if target.CleanPath(request(http.MethodConnect, "/a")) {
		t.Error("CONNECT has a clean path")
	}
	rewritten := request(http.MethodGet, "/a")
	rewritten.URL.Path = "/b"
	if target.CleanPath(rewritten) {
		t.Error("a path is clean that is not the one of the request line")
	}
	for name, u := range map[string]*url.URL{
		"escaped":  {Path: "/a/b", RawPath: "/a%2Fb"},
		"fragment": {Path: "/a", Fragment: "b"},
	} {
		if target.CleanPath(&http.Request{Method: http.MethodGet, URL: u}) {
			t.Errorf("%s: a path is clean that says more than it shows", name)
		}
	}
	made := request(http.MethodGet, "/a")
	made.RequestURI = "" // as a request that was made in this process
	if !target.CleanPath(made) {
		t.Error("a request without request line is refused")
	}
}

// FuzzCleanPath holds that a clean path means the same read twice, cleaned or
// escaped: nobody behind the host can take it for another.
func FuzzCleanPath(f *testing.F) {
	for uri := range uris {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		r := request(http.MethodGet, uri)
		if !target.CleanPath(r) {
			return
		}
		line, _, _ := strings.Cut(uri, "?")
		again, err := url.PathUnescape(r.URL.Path)
		if line != r.URL.Path || err != nil || again != r.URL.Path || r.URL.EscapedPath() != line {
			t.Errorf("%q is clean, and %q unescapes to %q (%v)", uri, r.URL.Path, again, err)
		}
		for segment := range strings.SplitSeq(strings.TrimSuffix(line[1:], "/"), "/") {
			if segment == "." || segment == ".." || segment == "" && line != "/" {
				t.Errorf("%q is clean and has the segment %q", uri, segment)
			}
		}
	})
}
