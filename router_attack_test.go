package connectplugin_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// trapServer is a server that nobody should reach.
type trapServer struct {
	requestRecorder

	addr     string
	accepted atomic.Int64
}

// newTrap listens on a free port of an address, with TLS unless cfg is nil.
func newTrap(t *testing.T, address string, cfg *tls.Config) *trapServer {
	t.Helper()
	return newTrapAt(t, net.JoinHostPort(address, "0"), cfg)
}

// newTrapAt listens on an address with its port.
func newTrapAt(t *testing.T, address string, cfg *tls.Config) *trapServer {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &trapServer{addr: l.Addr().String()}
	s.next = echoService{}.handler()
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: s, TLSConfig: forAnybody(cfg), Protocols: &protocols, ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.accepted.Add(1)
			}
		},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if cfg == nil {
			_ = server.Serve(l)
		} else {
			_ = server.ServeTLS(l, "", "")
		}
	}()
	t.Cleanup(func() { _ = server.Close(); <-served })
	return s
}

// forAnybody is a server's configuration that asks clients for nothing.
func forAnybody(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		return nil
	}
	cfg = cfg.Clone()
	cfg.ClientAuth, cfg.VerifyConnection = tls.NoClientCert, nil
	return cfg
}

func (s *trapServer) port() string { return s.addr[strings.LastIndex(s.addr, ":"):] }

// enrolProvider connects a plugin of the first wire version: it registers itself
// and serves by its own means.
func enrolProvider(t *testing.T, host *hosttest.Host, selfID string) *connectplugin.Client {
	t.Helper()
	return host.Enrol(t, selfID, func(c *connectplugin.ClientConfig) { c.Metadata.Provides = hosttest.Provides(echoType) })
}

func registerEcho(t *testing.T, c *connectplugin.Client, metadata map[string]string) error {
	t.Helper()
	_, err := c.RegistryClient().RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: echoType, Version: "1.0.0", EndpointPath: echoBase, Metadata: metadata,
	}))
	return err
}

// A plugin that names its own endpoint names one on the address that it registers
// from, and whatever else it says in its metadata selects nothing.
func TestAudit_PROTO52_BaseURLSelectsNoDestination(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(echoPolicy()))
	providerTLS, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := newTrap(t, "127.0.0.2", providerTLS)
	caller := host.Enrol(t, "caller", requires(echoType))
	for name, metadata := range map[string]map[string]string{
		"another address":             {"base_url": "https://" + elsewhere.addr},
		"another address, in hex":     {"base_url": "https://0x7f000002" + elsewhere.port()},
		"another address, in decimal": {"base_url": "https://2130706434" + elsewhere.port()},
		"another address, in octal":   {"base_url": "https://0177.0.0.2" + elsewhere.port()},
		"another address, short":      {"base_url": "https://127.2" + elsewhere.port()},
		"mapped into IPv6":            {"base_url": "https://[::ffff:127.0.0.2]" + elsewhere.port()},
		"link-local":                  {"base_url": "https://169.254.169.254/"},
		"link-local, IPv6":            {"base_url": "https://[fe80::1]/"},
		"link-local with a zone":      {"base_url": "https://[fe80::1%25lo]/"},
		"metadata service, IPv6":      {"base_url": "https://[fd00:ec2::254]/"},
		"unspecified":                 {"base_url": "https://0.0.0.0" + elsewhere.port()},
		"unspecified, IPv6":           {"base_url": "https://[::]" + elsewhere.port()},
		"broadcast":                   {"base_url": "https://255.255.255.255/"},
		"private network":             {"base_url": "https://10.0.0.1/"},
		"unknown name":                {"base_url": "https://metadata.google.internal./"},
		"no host":                     {"base_url": "https:///x"},
		"user and password":           {"base_url": "https://127.0.0.1@" + elsewhere.addr},
		"query":                       {"base_url": "https://127.0.0.1:1?x=" + elsewhere.addr},
		"fragment":                    {"base_url": "https://127.0.0.1:1#@" + elsewhere.addr},
		"escapes":                     {"base_url": "https://127.0.0.1:1/%2e%2e"},
		"dots":                        {"base_url": "https://127.0.0.1:1/../x"},
		"backslash":                   {"base_url": `https://127.0.0.1:1\@` + elsewhere.addr},
		"plaintext":                   {"base_url": "http://127.0.0.1:1"},
		"file":                        {"base_url": "file:///etc/passwd"},
		"unix socket":                 {"base_url": "unix:///run/docker.sock"},
		"no scheme":                   {"base_url": elsewhere.addr},
		"other keys": {
			"endpoint": "https://" + elsewhere.addr, "url": "https://" + elsewhere.addr, "address": elsewhere.addr,
			"host": elsewhere.addr, "BASE_URL": "https://" + elsewhere.addr, "baseurl": "https://" + elsewhere.addr,
			"endpoint_url": "https://" + elsewhere.addr, "proxy": "https://" + elsewhere.addr,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider := enrolProvider(t, host, "provider")
			err := registerEcho(t, provider, metadata)
			if _, named := metadata["base_url"]; named && connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("register: %v, want permission_denied", err)
			}
			to := at(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
			for protocol, opts := range protocols {
				for kind, call := range echoKinds {
					if out := call(t.Context(), to, opts, nil); out.err == nil {
						t.Errorf("%s, %s: was answered with %v", protocol, kind, out.messages)
					}
				}
			}
		})
	}
	t.Cleanup(func() {
		if n := elsewhere.accepted.Load(); n != 0 {
			t.Errorf("the host connected %d times to an address of the plugin's choice", n)
		}
	})
	t.Run("the honest one", func(t *testing.T) {
		t.Parallel()
		own := newTrap(t, "127.0.0.1", providerTLS)
		provider := enrolProvider(t, host, "provider")
		if err := registerEcho(t, provider, map[string]string{"base_url": "https://" + own.addr}); err != nil {
			t.Fatal(err)
		}
		to := at(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
		for protocol, opts := range protocols {
			for kind, call := range echoKinds {
				if out := call(t.Context(), to, opts, nil); out.err != nil {
					t.Errorf("%s, %s: %v", protocol, kind, out.err)
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
	approved, claimed := newTrap(t, "127.0.0.1", providerTLS), newTrap(t, "127.0.0.1", providerTLS)
	for name, edit := range map[string]func(*connectplugin.PluginPolicy){
		"endpoint of policy": func(p *connectplugin.PluginPolicy) { p.Endpoint = "https://" + approved.addr },
		"endpoint of policy and own address allowed": func(p *connectplugin.PluginPolicy) {
			p.Endpoint, p.AllowOwnAddress = "https://"+approved.addr, true
		},
		"none allowed": func(p *connectplugin.PluginPolicy) { p.AllowOwnAddress = false },
	} {
		t.Run(name, func(t *testing.T) {
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Authority, c.Policy = authority, echoPolicy()
				rules := c.Policy.Plugins["provider"]
				edit(&rules)
				c.Policy.Plugins["provider"] = rules
			})
			host.Authority = authority
			provider, caller := enrolProvider(t, host, "provider"), host.Enrol(t, "caller", requires(echoType))
			err := registerEcho(t, provider, map[string]string{"base_url": "https://" + claimed.addr})
			to := at(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
			for protocol, opts := range protocols {
				out := callUnary(t.Context(), to, opts, nil)
				if name == "none allowed" {
					if connect.CodeOf(err) != connect.CodePermissionDenied || out.err == nil {
						t.Errorf("%s: register: %v, call: %v", protocol, err, out.err)
					}
				} else if err != nil || out.err != nil || len(approved.take()) != 1 {
					t.Errorf("%s: the approved endpoint: register %v, call %v", protocol, err, out.err)
				}
			}
			if claimed.accepted.Load() != 0 {
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
	host := hosttest.Start(t, withPolicy(echoPolicy()))
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
	caller := host.Enrol(t, "caller", requires(echoType))
	provider := enrolProvider(t, host, "provider")
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
			server := newTrap(t, "127.0.0.1", cfg)
			if err := registerEcho(t, provider, map[string]string{"base_url": "https://" + server.addr}); err != nil {
				t.Fatal(err)
			}
			to := at(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
			for protocol, opts := range protocols {
				for kind, call := range echoKinds {
					out := call(t.Context(), to, opts, nil)
					if honest := name == "the plugin"; honest && out.err != nil || !honest && connect.CodeOf(out.err) != connect.CodeUnavailable {
						t.Errorf("%s, %s: %v %v", protocol, kind, out.messages, out.err)
					}
				}
			}
			if got := server.take(); (len(got) > 0) != (name == "the plugin") {
				t.Errorf("%d requests arrived", len(got))
			}
		})
	}
	t.Run("the host itself", func(t *testing.T) {
		if err := registerEcho(t, provider, map[string]string{"base_url": host.URL}); err != nil {
			t.Fatal(err)
		}
		to := at(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
		if out := callUnary(t.Context(), to, nil, nil); connect.CodeOf(out.err) != connect.CodeUnavailable {
			t.Errorf("%v, want unavailable", out.err)
		}
	})
}

func oldTLS(cfg *tls.Config) *tls.Config {
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	return cfg
}

// A key that policy pins is demanded of the plugin as a server too.
func TestAudit_PROTO52_PinnedKeyOfAProvider(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	providerTLS, err := authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	otherTLS, err := authority.PluginTLS("provider") // the same name, another key
	if err != nil {
		t.Fatal(err)
	}
	right, wrong := newTrap(t, "127.0.0.1", providerTLS), newTrap(t, "127.0.0.1", otherTLS)
	for _, server := range []*trapServer{right, wrong} {
		host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
			c.Authority, c.Policy = authority, echoPolicy()
			rules := c.Policy.Plugins["provider"]
			rules.Endpoint, rules.PinnedKeys = "https://"+server.addr, []string{keyPin(t, providerTLS)}
			c.Policy.Plugins["provider"] = rules
		})
		host.Authority = authority
		provider := host.Enrol(t, "provider", func(c *connectplugin.ClientConfig) {
			c.TLS, c.Metadata.Provides = providerTLS, hosttest.Provides(echoType)
		})
		if err := registerEcho(t, provider, nil); err != nil {
			t.Fatal(err)
		}
		caller := host.Enrol(t, "caller", requires(echoType))
		to := at(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
		for protocol, opts := range protocols {
			out := callUnary(t.Context(), to, opts, nil)
			if server == right && out.err != nil || server == wrong && connect.CodeOf(out.err) != connect.CodeUnavailable {
				t.Errorf("%s: right key: %v, got %v", protocol, server == right, out.err)
			}
		}
	}
	if n := len(wrong.take()); n != 0 {
		t.Errorf("%d requests reached another key", n)
	}
}

// A plugin takes calls from the host alone.
func TestAudit_PROTO52_PluginsAnswerTheHostOnly(t *testing.T) {
	t.Parallel()
	service := &requestRecorder{next: echoService{}.handler()}
	rig := &echoRig{Host: hosttest.Start(t, withPolicy(echoPolicy()))}
	l := hosttest.Listen(t)
	rig.provider = rig.provide(t, "provider", service, func(c *connectplugin.PluginServerConfig) { c.Listener = l })
	rig.caller = rig.Enrol(t, "caller", requires(echoType))
	asCaller, err := rig.Authority.PluginTLS("caller")
	if err != nil {
		t.Fatal(err)
	}
	asProvider, err := rig.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]*tls.Config{
		"no certificate": rig.StrangerTLS(), "another plugin": asCaller, "the plugin itself": asProvider,
	} {
		cfg = cfg.Clone()
		cfg.InsecureSkipVerify, cfg.VerifyConnection = true, nil // the attacker does not mind whom it reaches
		direct := at("https://"+l.Addr().String(), hosttest.HTTPClient(t, cfg))
		header := http.Header{"X-Plugin-Caller-Id": {rig.caller.RuntimeID()}}
		for protocol, opts := range protocols {
			if out := callUnary(t.Context(), direct, opts, header); out.err == nil {
				t.Errorf("%s, %s: was served", name, protocol)
			}
		}
	}
	if n := len(service.take()); n != 0 {
		t.Errorf("%d requests were served", n)
	}
	for protocol, opts := range protocols {
		if out := callUnary(t.Context(), rig.toProvider(), opts, nil); out.err != nil {
			t.Errorf("%s, through the host: %v", protocol, out.err)
		}
	}
}

// A redirect is neither followed nor handed on.
func TestAudit_H29_RedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := newTrap(t, "127.0.0.1", nil)
	secure := newTrap(t, "127.0.0.1", hosttest.NewAuthority(t).ClientTLS())
	var status atomic.Int64
	var location atomic.Pointer[string]
	rig := newEchoRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status.Load() == 0 {
			echoService{}.handler().ServeHTTP(w, r)
			return
		}
		w.Header().Set("Location", *location.Load())
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(int(status.Load()))
	}), nil)
	targets := []string{
		"http://" + elsewhere.addr + "/", "https://" + secure.addr + "/", echoLook, rig.toProvider().base + echoLook, "//" + elsewhere.addr + "/",
	}
	client := &tapClient{next: rig.caller.HTTPClient()}
	to := at(rig.toProvider().base, client)
	for _, code := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		for i := range targets {
			location.Store(&targets[i])
			status.Store(int64(code))
			for protocol, opts := range protocols {
				kind := []string{"unary", "client", "server", "bidi"}[i%4]
				if out := echoKinds[kind](t.Context(), to, opts, nil); connect.CodeOf(out.err) != connect.CodeUnavailable {
					t.Errorf("%d, %s, %s: %v, want unavailable", code, protocol, kind, out.err)
				}
			}
		}
	}
	if elsewhere.accepted.Load()+secure.accepted.Load() != 0 {
		t.Error("a redirect was followed")
	}
	for _, fields := range client.fields() {
		if got := fields.Get("Location"); got != "" {
			t.Errorf("a redirect to %q was handed on", got)
		}
	}
	status.Store(0)
	for protocol, opts := range protocols {
		for kind, call := range echoKinds {
			if out := call(t.Context(), to, opts, nil); out.err != nil {
				t.Errorf("without a redirect, %s, %s: %v", protocol, kind, out.err)
			}
		}
	}
}

// keyPin is the digest of the key in the certificate that a configuration shows.
func keyPin(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	cert, err := cfg.GetCertificate(&tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}
