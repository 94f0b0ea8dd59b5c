package router_test

import (
	"crypto/tls"
	"net/http"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A plugin that names its own endpoint names one on the address that it registers
// from, and whatever else it says in its metadata selects nothing.
func TestAudit_PROTO52_BaseURLSelectsNoDestination(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))
	providerTLS, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := echo.NewTrap(t, "127.0.0.2", providerTLS)
	caller := host.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	for name, metadata := range map[string]map[string]string{
		"another address":             {"base_url": "https://" + elsewhere.Addr},
		"another address, in hex":     {"base_url": "https://0x7f000002" + elsewhere.Port()},
		"another address, in decimal": {"base_url": "https://2130706434" + elsewhere.Port()},
		"another address, in octal":   {"base_url": "https://0177.0.0.2" + elsewhere.Port()},
		"another address, short":      {"base_url": "https://127.2" + elsewhere.Port()},
		"mapped into IPv6":            {"base_url": "https://[::ffff:127.0.0.2]" + elsewhere.Port()},
		"link-local":                  {"base_url": "https://169.254.169.254/"},
		"link-local, IPv6":            {"base_url": "https://[fe80::1]/"},
		"link-local with a zone":      {"base_url": "https://[fe80::1%25lo]/"},
		"metadata service, IPv6":      {"base_url": "https://[fd00:ec2::254]/"},
		"unspecified":                 {"base_url": "https://0.0.0.0" + elsewhere.Port()},
		"unspecified, IPv6":           {"base_url": "https://[::]" + elsewhere.Port()},
		"broadcast":                   {"base_url": "https://255.255.255.255/"},
		"private network":             {"base_url": "https://10.0.0.1/"},
		"unknown name":                {"base_url": "https://metadata.google.internal./"},
		"no host":                     {"base_url": "https:///x"},
		"user and password":           {"base_url": "https://127.0.0.1@" + elsewhere.Addr},
		"query":                       {"base_url": "https://127.0.0.1:1?x=" + elsewhere.Addr},
		"fragment":                    {"base_url": "https://127.0.0.1:1#@" + elsewhere.Addr},
		"escapes":                     {"base_url": "https://127.0.0.1:1/%2e%2e"},
		"dots":                        {"base_url": "https://127.0.0.1:1/../x"},
		"backslash":                   {"base_url": `https://127.0.0.1:1\@` + elsewhere.Addr},
		"plaintext":                   {"base_url": "http://127.0.0.1:1"},
		"file":                        {"base_url": "file:///etc/passwd"},
		"unix socket":                 {"base_url": "unix:///run/docker.sock"},
		"no scheme":                   {"base_url": elsewhere.Addr},
		"other keys": {
			"endpoint": "https://" + elsewhere.Addr, "url": "https://" + elsewhere.Addr, "address": elsewhere.Addr,
			"host": elsewhere.Addr, "BASE_URL": "https://" + elsewhere.Addr, "baseurl": "https://" + elsewhere.Addr,
			"endpoint_url": "https://" + elsewhere.Addr, "proxy": "https://" + elsewhere.Addr,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider := echo.EnrolProvider(t, host, "provider")
			err := echo.Register(t, provider, metadata)
			if _, named := metadata["base_url"]; named && connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("register: %v, want permission_denied", err)
			}
			to := echo.At(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
			for protocol, opts := range hosttest.Protocols {
				for kind, call := range echo.Kinds {
					if out := call(t.Context(), to, opts, nil); out.Err == nil {
						t.Errorf("%s, %s: was answered with %v", protocol, kind, out.Messages)
					}
				}
			}
		})
	}
	t.Cleanup(func() {
		if n := elsewhere.Accepted.Load(); n != 0 {
			t.Errorf("the host connected %d times to an address of the plugin's choice", n)
		}
	})
	t.Run("the honest one", func(t *testing.T) {
		t.Parallel()
		own := echo.NewTrap(t, "127.0.0.1", providerTLS)
		provider := echo.EnrolProvider(t, host, "provider")
		if err := echo.Register(t, provider, map[string]string{"base_url": "https://" + own.Addr}); err != nil {
			t.Fatal(err)
		}
		to := echo.At(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
		for protocol, opts := range hosttest.Protocols {
			for kind, call := range echo.Kinds {
				if out := call(t.Context(), to, opts, nil); out.Err != nil {
					t.Errorf("%s, %s: %v", protocol, kind, out.Err)
				}
			}
		}
	})
}

// Where policy names the endpoint, or lets the plugin name none, that is it.
func TestAudit_PROTO52_PolicyWinsOverMetadata(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	providerTLS, err := authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	approved, claimed := echo.NewTrap(t, "127.0.0.1", providerTLS), echo.NewTrap(t, "127.0.0.1", providerTLS)
	for name, edit := range map[string]func(*connectplugin.PluginPolicy){
		"endpoint of policy": func(p *connectplugin.PluginPolicy) { p.Endpoint = "https://" + approved.Addr },
		"endpoint of policy and own address allowed": func(p *connectplugin.PluginPolicy) {
			p.Endpoint, p.AllowOwnAddress = "https://"+approved.Addr, true
		},
		"none allowed": func(p *connectplugin.PluginPolicy) { p.AllowOwnAddress = false },
	} {
		t.Run(name, func(t *testing.T) {
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Authority, c.Policy = authority, echo.Policy()
				rules := c.Policy.Plugins["provider"]
				edit(&rules)
				c.Policy.Plugins["provider"] = rules
			})
			host.Authority = authority
			provider, caller := echo.EnrolProvider(t, host, "provider"), host.Enrol(t, "caller", hosttest.Requiring(echo.Type))
			err := echo.Register(t, provider, map[string]string{"base_url": "https://" + claimed.Addr})
			to := echo.At(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
			for protocol, opts := range hosttest.Protocols {
				out := echo.CallUnary(t.Context(), to, opts, nil)
				if name == "none allowed" {
					if connect.CodeOf(err) != connect.CodePermissionDenied || out.Err == nil {
						t.Errorf("%s: register: %v, call: %v", protocol, err, out.Err)
					}
				} else if err != nil || out.Err != nil || len(approved.Take()) != 1 {
					t.Errorf("%s: the approved endpoint: register %v, call %v", protocol, err, out.Err)
				}
			}
			if claimed.Accepted.Load() != 0 {
				t.Error("the host connected to the endpoint of the metadata")
			}
		})
	}
}

// Whoever answers at an approved endpoint without the certificate of the plugin
// gets no request: no other plugin, no other service of that address, not the
// host itself.
func TestAudit_PROTO52_OnlyThePluginItselfAnswers(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))
	certificateOf := func(a *connectplugin.Authority, selfID string) *tls.Config {
		t.Helper()
		cfg, err := a.PluginTLS(selfID)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	stranger := hosttest.NewAuthority(t)
	hostTLS, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	caller := host.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	provider := echo.EnrolProvider(t, host, "provider")
	for name, cfg := range map[string]*tls.Config{
		"another plugin":              certificateOf(host.Authority, "other"),
		"a plugin with a longer name": certificateOf(host.Authority, "provider-2"),
		"the host's certificate":      hostTLS,
		"the name, another authority": certificateOf(stranger, "provider"),
		"plaintext":                   nil,
		"TLS 1.2":                     oldTLS(certificateOf(host.Authority, "provider")),
		"the plugin":                  certificateOf(host.Authority, "provider"),
	} {
		t.Run(name, func(t *testing.T) {
			server := echo.NewTrap(t, "127.0.0.1", cfg)
			if err := echo.Register(t, provider, map[string]string{"base_url": "https://" + server.Addr}); err != nil {
				t.Fatal(err)
			}
			to := echo.At(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
			for protocol, opts := range hosttest.Protocols {
				for kind, call := range echo.Kinds {
					out := call(t.Context(), to, opts, nil)
					if honest := name == "the plugin"; honest && out.Err != nil || !honest && connect.CodeOf(out.Err) != connect.CodeUnavailable {
						t.Errorf("%s, %s: %v %v", protocol, kind, out.Messages, out.Err)
					}
				}
			}
			if got := server.Take(); (len(got) > 0) != (name == "the plugin") {
				t.Errorf("%d requests arrived", len(got))
			}
		})
	}
	t.Run("the host itself", func(t *testing.T) {
		if err := echo.Register(t, provider, map[string]string{"base_url": host.URL}); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("register: %v, want permission_denied", err)
		}
	})
}

func oldTLS(cfg *tls.Config) *tls.Config {
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	return cfg
}

// A redirect is neither followed nor handed on.
func TestAudit_H29_RedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := echo.NewTrap(t, "127.0.0.1", nil)
	secure := echo.NewTrap(t, "127.0.0.1", hosttest.NewAuthority(t).ClientTLS())
	var status atomic.Int64
	var location atomic.Pointer[string]
	rig := echo.NewRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status.Load() == 0 {
			echo.Service{}.Handler().ServeHTTP(w, r)
			return
		}
		w.Header().Set("Location", *location.Load())
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(int(status.Load()))
	}), nil)
	targets := []string{
		"http://" + elsewhere.Addr + "/", "https://" + secure.Addr + "/", echo.Look, rig.ToProvider().Base + echo.Look, "//" + elsewhere.Addr + "/",
	}
	client := &tapClient{next: rig.Caller.HTTPClient()}
	to := echo.At(rig.ToProvider().Base, client)
	for _, code := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		for i := range targets {
			location.Store(&targets[i])
			status.Store(int64(code))
			for protocol, opts := range hosttest.Protocols {
				kind := []string{"unary", "client", "server", "bidi"}[i%4]
				if out := echo.Kinds[kind](t.Context(), to, opts, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
					t.Errorf("%d, %s, %s: %v, want unavailable", code, protocol, kind, out.Err)
				}
			}
		}
	}
	if elsewhere.Accepted.Load()+secure.Accepted.Load() != 0 {
		t.Error("a redirect was followed")
	}
	for _, fields := range client.fields() {
		if got := fields.Get("Location"); got != "" {
			t.Errorf("a redirect to %q was handed on", got)
		}
	}
	status.Store(0)
	for protocol, opts := range hosttest.Protocols {
		for kind, call := range echo.Kinds {
			if out := call(t.Context(), to, opts, nil); out.Err != nil {
				t.Errorf("without a redirect, %s, %s: %v", protocol, kind, out.Err)
			}
		}
	}
}
