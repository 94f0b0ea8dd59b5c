package proxy_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	tests := []struct {
		raw       string
		plaintext bool // is allowed
		want      string
	}{
		{raw: "https://plugin.example:8443", want: "https://plugin.example:8443"},
		{raw: "https://plugin.example", want: "https://plugin.example:443"},
		{raw: "https://127.0.0.1:1/", want: "https://127.0.0.1:1"},
		{raw: "https://[::1]:1/base/path", want: "https://[::1]:1/base/path"},
		{raw: "https://a:1/it's/(x)!*", want: "https://a:1/it's/(x)!*"},
		{raw: "https://a/x%21"},
		{raw: "https://a/x!%21"},
		{raw: "https://a/x%41"},
		{raw: "http://localhost:80", plaintext: true, want: "http://localhost:80"},
		{raw: "http://localhost", plaintext: true, want: "http://localhost:80"},
		{raw: "http://localhost:80"},
		{raw: ""},
		{raw: "plugin.example:8443"},
		{raw: "https://"},
		{raw: "https://:443"},
		{raw: "ftp://a", plaintext: true},
		{raw: "unix:///tmp/a", plaintext: true},
		{raw: "https://user@a"},
		{raw: "https://user:password@a"},
		{raw: "https://@a"},
		{raw: "https://a?q"},
		{raw: "https://a?"},
		{raw: "https://a#f"},
		{raw: "https://a/../b"},
		{raw: "https://a/%2e%2e"},
		{raw: "https://a//b"},
		{raw: "https://a:0"},
		{raw: "https://a:65536"},
		{raw: "https://a:b"},
		{raw: "https://a b"},
		{raw: "https://a%00b"},
		{raw: "https://[fe80::1%25eth0]:1"},
		{raw: "https://2130706433"},
		{raw: "https://0x7f.1"},
		{raw: "https://127.1"},
		{raw: "https://a..b"},
		{raw: "https://a."},
		{raw: "https://\u00e4.example"},
		{raw: "https://a\\@b"},
	}
	for _, test := range tests {
		e, err := proxy.ParseEndpoint(test.raw, test.plaintext)
		switch {
		case test.want == "" && (!errors.Is(err, proxy.ErrEndpoint) || !e.IsZero()):
			t.Errorf("%q: %v, %v", test.raw, e, err)
		case test.want != "" && (err != nil || e.String() != test.want || e.Plaintext() != (test.raw[4] == ':')):
			t.Errorf("%q: %v, %v; want %q", test.raw, e, err, test.want)
		}
	}
}

func TestAudit_PROTO52_CheckAddress(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "93.184.216.34", "2001:db8::1", "fd12:3456::1", "::ffff:10.0.0.1"} {
		if err := proxy.CheckAddress(netip.MustParseAddr(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	bad := []string{
		"169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "fe80::1", "fe80::1%eth0", "0.0.0.0", "::", "0.1.2.3", "224.0.0.1", "239.1.1.1",
		"ff02::1", "255.255.255.255", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
		"::a9fe:a9fe", "2001::1", "fec0::1",
	}
	for _, addr := range bad {
		if err := proxy.CheckAddress(netip.MustParseAddr(addr)); !errors.Is(err, proxy.ErrAddress) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := proxy.CheckAddress(netip.Addr{}); !errors.Is(err, proxy.ErrAddress) {
		t.Errorf("zero: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	lookup := func(addrs ...netip.Addr) proxy.Resolver {
		return resolverFunc(func(_ context.Context, network, host string) ([]netip.Addr, error) {
			if network != "ip" || host != "plugin.example" {
				t.Errorf("look-up of %s %s", network, host)
			}
			return addrs, nil
		})
	}
	e := endpointOf(t, "https://plugin.example:8443")
	got, err := e.Addresses(t.Context(), lookup(netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("2001:db8::1")))
	if err != nil || len(got) != 2 || got[0].String() != "10.0.0.1:8443" || got[1].String() != "[2001:db8::1]:8443" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := e.Addresses(t.Context(), lookup()); !errors.Is(err, proxy.ErrAddress) {
		t.Errorf("none: %v", err)
	}
	fail := errors.New("no such host")
	_, err = e.Addresses(t.Context(), resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) { return nil, fail }))
	if !errors.Is(err, fail) {
		t.Errorf("failure: %v", err)
	}
	literal, err := endpointOf(t, "https://10.0.0.1").Addresses(t.Context(), resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
		t.Error("an address was looked up")
		return nil, fail
	}))
	if err != nil || literal[0].String() != "10.0.0.1:443" {
		t.Errorf("literal: %v, %v", literal, err)
	}
	if _, err := endpointOf(t, "https://169.254.169.254").Addresses(t.Context(), nil); !errors.Is(err, proxy.ErrAddress) {
		t.Errorf("metadata: %v", err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]proxy.Config{
		"nothing": {},
		"no TLS":  {Endpoint: endpointOf(t, "https://127.0.0.1:1")},
	} {
		if _, err := proxy.New(cfg); !errors.Is(err, proxy.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
