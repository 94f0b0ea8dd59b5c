package attack_test

import (
	"bytes"
	"maps"
	"net"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// An endpoint that a plugin names is its own only where it is the plugin that answers: the
// address of one that has not registered yet, and that of a service that is no plugin, are
// refused, however they are written.
func TestAudit_USE27_WhoAnswersShowsThatItIsThePlugin(t *testing.T) {
	t.Parallel()
	for name, lives := range map[string]bool{"a plugin that registers later": true, "no plugin at all": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, victim := newStreet(t, ""), &echo{}
			at := s.house(t, victim)
			storage, evil := s.enrol(t, "storage", "echo", nil), s.enrol(t, "evil", "evilsvc", nil)
			if lives {
				r, _ := s.houses.Load(at)
				r.(*hosttest.Resident).Live(storage)
			}
			claims := spellings(at)
			claims["a path below"] = at + strings.TrimSuffix(echoPath, "/")
			claims["a path beside"] = at + "/other"
			for spelling, endpoint := range claims {
				if err := register(t, evil, "evilsvc", endpoint); connect.CodeOf(err) != connect.CodePermissionDenied {
					t.Errorf("%s: %v, want permission_denied", spelling, err)
				}
			}
			wantRefused(t, "through a type of its own", s.through(t, evil, "evilsvc", evil.RuntimeID()), connect.CodeUnavailable)
			if n := victim.calls.Load(); n != 0 {
				t.Errorf("%d calls reached the victim", n)
			}
			if err := s.move(t, evil, "evilsvc", s.house(t, &echo{})); err != nil {
				t.Errorf("at an endpoint of its own: %v", err)
			}
			wantServed(t, "its own", s.through(t, evil, "evilsvc", evil.RuntimeID()))
			if !lives {
				return
			}
			if err := s.move(t, storage, "echo", at); err != nil {
				t.Errorf("the victim: %v", err)
			}
			wantServed(t, "the victim", s.through(t, s.enrol(t, "api", "echo", nil), "echo", storage.RuntimeID()))
		})
	}
}

// What a plugin showed once is asked again on each connection: an address that it had, or
// claimed while nobody was there, is of no use to it once another answers there. The other
// gets it by showing that it does.
func TestAudit_USE27_AnotherAnswersThereLater(t *testing.T) {
	t.Parallel()
	for name, was := range map[string]bool{"it was there": true, "nobody was there": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, victim := newStreet(t, ""), &echo{}
			cfg := s.ca.TLS(s.ca.Certify(t, hosttest.Loopback))
			storage, evil := s.enrol(t, "storage", "echo", nil), s.enrol(t, "evil", "evilsvc", nil)
			l := hosttest.Listen(t)
			at := "https://" + l.Addr().String()
			leave := func() { _ = l.Close() }
			if was {
				own := &hosttest.Resident{Next: (&echo{}).handler()}
				own.Live(evil)
				leave = hosttest.ServeOn(t, l, cfg, own)
			} else {
				leave()
			}
			if err := register(t, evil, "evilsvc", at); was && err != nil {
				t.Fatal(err)
			}
			if was {
				wantServed(t, "as long as it is there", s.through(t, evil, "evilsvc", evil.RuntimeID()))
			}
			leave()
			later := &hosttest.Resident{Next: victim.handler()}
			later.Live(storage)
			hosttest.ServeOn(t, listenAt(t, strings.TrimPrefix(at, "https://")), cfg, later)
			for range 3 {
				wantRefused(t, "through a type of its own", s.through(t, evil, "evilsvc", evil.RuntimeID()))
			}
			if err := register(t, storage, "echo", at); err != nil {
				t.Fatalf("the one that answers: %v", err)
			}
			if !s.conflict(evil.RuntimeID(), "storage") {
				t.Error("the audit does not say who lost the endpoint to whom")
			}
			wantRefused(t, "still", s.through(t, evil, "evilsvc", evil.RuntimeID()))
			if n := victim.calls.Load(); n != 0 {
				t.Errorf("%d calls of the other reached the victim", n)
			}
			wantServed(t, "the victim", s.through(t, s.enrol(t, "api", "echo", nil), "echo", storage.RuntimeID()))
		})
	}
}

func listenAt(t *testing.T, addr string) (l net.Listener) {
	t.Helper()
	hosttest.Eventually(t, "the address is free", func() bool {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	return l
}

// A certificate that policy gives to one plugin alone tells it from the others, which is
// enough for plugins that can show nothing; one that several have, or may have, is not.
func TestAudit_USE27_CertificatesThatTellPluginsApart(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	cert := ca.Certify(t, hosttest.DNS("storage.example"), hosttest.Loopback)
	at := hosttest.ServeTLS(t, ca.TLS(cert), (&echo{}).handler())
	named := withCertificates("storage.example")
	for name, c := range map[string]struct {
		others map[string]func(*connectplugin.PluginPolicy)
		policy func(*connectplugin.PluginPolicy)
		first  bool // another plugin with the certificate is there
		ok     bool
	}{
		"named for it alone":           {nil, named, false, true},
		"named for two":                {map[string]func(*connectplugin.PluginPolicy){"other": named}, named, false, false},
		"shown by it alone":            {nil, withSecret, false, true},
		"shown, and named for another": {map[string]func(*connectplugin.PluginPolicy){"other": named}, withSecret, false, false},
		"shown by another, too":        {map[string]func(*connectplugin.PluginPolicy){"other": withSecret}, withSecret, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plugins := map[string]func(*connectplugin.PluginPolicy){"storage": c.policy}
			maps.Copy(plugins, c.others)
			host := ca.Start(t, ca.Certify(t, hosttest.DNS("localhost"), hosttest.Loopback), func(s *connectplugin.ServeConfig) { s.Policy = policyFor(plugins) })
			selves := []string{"storage"}
			if c.first {
				selves = []string{"other", "storage"}
			}
			var last *connectplugin.Client
			for _, self := range selves {
				cfg := connectplugin.ClientConfig{HostURL: host.URL, SelfID: self, TLS: ca.TLS(cert), Secret: hosttest.Secret}
				hosttest.Providing("echo")(&cfg)
				if !hasSecret(plugins[self]) {
					cfg.Secret = nil
				}
				var err error
				if last, err = enrol(t, cfg); err != nil {
					t.Fatal(err)
				}
			}
			err := register(t, last, "echo", at)
			if c.ok && err != nil || !c.ok && connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("without a proof: %v, want it accepted: %v", err, c.ok)
			}
		})
	}
}

func hasSecret(edit func(*connectplugin.PluginPolicy)) bool {
	var p connectplugin.PluginPolicy
	edit(&p)
	return p.Secret != nil
}

// In plaintext nothing else tells anybody apart, so that every plugin shows that it answers;
// an open policy in plaintext is warned of and protects nobody.
func TestAudit_USE27_InPlaintext(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]bool{"a policy": false, "an open policy": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, victim := &record{}, &echo{}
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Authority, c.AllowInsecure, c.Logger = nil, true, log.logger()
				c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": unproven, "api": unproven, "evil": func(p *connectplugin.PluginPolicy) {
					unproven(p)
					p.Provides, p.Requires = []string{"evilsvc"}, []string{"evilsvc"}
				}})
				if open {
					c.Policy = connectplugin.OpenPolicy()
				}
			})
			l := hosttest.Listen(t)
			hosttest.ServeOn(t, l, nil, victim.handler())
			evil, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "evil", AllowInsecure: true, Metadata: meta("evilsvc")})
			if err != nil {
				t.Fatal(err)
			}
			err = register(t, evil, "evilsvc", "http://"+l.Addr().String())
			if open && err != nil || !open && connect.CodeOf(err) != connect.CodePermissionDenied || strings.Contains(log.String(), "any service on a plugin's address") != open {
				t.Errorf("%v; the log says %s", err, log.String())
			}
			e := &echo{}
			plugin := host.StartPlugin(t, "storage", func(p *connectplugin.PluginServerConfig) {
				p.Client.TLS, p.Client.Secret, p.Client.AllowInsecure = nil, nil, true
				p.Services = []connectplugin.PluginService{e.service("echo")}
			})
			api, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", AllowInsecure: true, Metadata: meta("echo")})
			if err != nil {
				t.Fatal(err)
			}
			wantServed(t, "ServePlugin's", callEcho(t.Context(), api.HTTPClient(), host.URL+"/services/echo/"+plugin.Client.RuntimeID()))
		})
	}
}

func meta(serviceType string) connectplugin.PluginMetadata {
	return connectplugin.PluginMetadata{Provides: hosttest.Provides(serviceType), Requires: hosttest.Requires(serviceType)}
}

// A plugin of ServePlugin answers for its own runtime id, and proves it.
func TestAudit_USE26_AQuestionIsAnsweredForItsRuntimeID(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.AllowInsecure, c.Policy = nil, true, connectplugin.OpenPolicy()
	})
	l := hosttest.Listen(t)
	plugin := host.StartPlugin(t, "storage", func(p *connectplugin.PluginServerConfig) {
		p.Client.TLS, p.Client.Secret, p.Client.AllowInsecure, p.Listener = nil, nil, true, l
		p.Services = []connectplugin.PluginService{(&echo{}).service("echo")}
	})
	control := connectpluginv1connect.NewPluginControlClient(hosttest.HTTPClient(t, nil), "http://"+l.Addr().String())
	ask := func(id string, challenge []byte) (*connectpluginv1.GetHealthResponse, connect.Code) {
		resp, err := control.GetHealth(t.Context(), connect.NewRequest(&connectpluginv1.GetHealthRequest{RuntimeId: id, Challenge: challenge}))
		if err != nil {
			return nil, connect.CodeOf(err)
		}
		return resp.Msg, 0
	}
	own := plugin.Client.RuntimeID()
	one, code := ask(own, []byte("one"))
	two, _ := ask(own, []byte("two"))
	if code != 0 || !bytes.Equal(one.GetProof(), plugin.Client.HealthProof(own, []byte("one"))) || bytes.Equal(one.GetProof(), two.GetProof()) {
		t.Errorf("its own: %v, %v", code, one)
	}
	for name, c := range map[string]struct {
		id        string
		challenge int
		want      connect.Code
	}{
		"another's":            {"storage-" + strings.Repeat("a", 26), 32, connect.CodeNotFound},
		"a long challenge":     {own, 65, connect.CodeInvalidArgument},
		"an old host's":        {"", 0, 0},
		"nobody in particular": {"", 32, 0},
	} {
		m, code := ask(c.id, make([]byte, c.challenge))
		if code != c.want || code == 0 && (len(m.GetProof()) > 0) != (c.challenge > 0) {
			t.Errorf("%s: %v, %v", name, code, m)
		}
	}
}
