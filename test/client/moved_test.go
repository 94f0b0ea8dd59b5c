package client_test

import (
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// reachedPlugin is a host plugin whose client is where it is.
type reachedPlugin struct{ echo.HostPlugin }

// ConnectClient implements connectplugin.Plugin.
func (reachedPlugin) ConnectClient(base string, client connect.HTTPClient) (any, error) {
	return echo.At(base, client), nil
}

// discovering is a client that asks discovery where its host is, over its own connections or a foreign client's.
func discovering(t *testing.T, first *hosttest.Host, d connectplugin.DiscoveryService, foreign bool) *connectplugin.Client {
	t.Helper()
	cfg := first.ClientConfig(t, "caller")
	cfg.HostURL, cfg.Discovery, cfg.Plugins = "", d, connectplugin.PluginSet{"echo": reachedPlugin{}}
	cfg.Metadata.Requires = hosttest.Requires("echo")
	if foreign {
		cfg.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true}}
		cfg.TLS = nil
	}
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// What a program made before its host ended goes to the host that discovery has then: with the base that it was made with, in
// every kind of call, again and again. What is for nobody's host goes nowhere.
func TestDiscovery_WhatWasMadeFollowsTheHost(t *testing.T) {
	t.Parallel()
	for name, foreign := range map[string]bool{"its own connections": false, "a foreign HTTP client": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := echo.StartKindsHost(t, nil)
			next := func() *echo.KindsHost {
				return echo.StartKindsHost(t, func(c *connectplugin.ServeConfig) { c.Authority = first.Authority })
			}
			hosts := []*echo.KindsHost{first, next(), next()}
			d := connectplugin.NewStaticDiscovery(map[string][]connectplugin.Endpoint{
				"plugin-host": {{URL: first.URL}, {URL: hosts[1].URL}},
			})
			c := discovering(t, first.Host, d, foreign)
			made, bases := makeAll(t, c)
			reachAll(t, made, "before")
			for i, host := range hosts[1:] {
				if err := hosts[i].Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				d.RemoveService("plugin-host")
				d.AddEndpoint("plugin-host", connectplugin.Endpoint{URL: host.URL})
				hosttest.Eventually(t, "it is at the next host", func() bool {
					return c.Connect(t.Context()) == nil && c.Config().Endpoint == host.URL
				})
				reachAll(t, made, "after host "+string('1'+rune(i)))
				for what, base := range bases {
					if at := base(); !strings.HasPrefix(at, host.URL+"/") {
						t.Errorf("BaseURL of the %s is %s, and the host is at %s", what, at, host.URL)
					}
				}
			}
			elsewhere := echo.At("https://elsewhere.invalid", c.HTTPClient())
			if out := echo.CallUnary(t.Context(), elsewhere, nil, nil); out.Err == nil || !strings.Contains(out.Err.Error(), "credentials stay here") {
				t.Errorf("a call to somewhere else: %v", out.Err)
			}
		})
	}
}

// makeAll makes each thing that a program makes once and keeps, with the base of that time, and returns what says where
// it is now.
func makeAll(t *testing.T, c *connectplugin.Client) (made map[string]echo.Reachable, bases map[string]func() string) {
	t.Helper()
	conn, err := c.Service(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	grant, err := c.Capability(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	dispensed, err := connectplugin.DispenseTyped[echo.Endpoint](c, "echo")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]echo.Reachable{
		"service": echo.At(conn.BaseURL(), conn.HTTPClient()), "service, with the base of now": conn,
		"capability": echo.At(grant.BaseURL(), grant.HTTPClient()), "capability, with the base of now": grant,
		"host plugin": dispensed, "a base of its own": echo.At(c.Config().Endpoint, c.HTTPClient()),
	}, map[string]func() string{"service": conn.BaseURL, "capability": grant.BaseURL}
}

func reachAll(t *testing.T, made map[string]echo.Reachable, when string) {
	t.Helper()
	for what, r := range made {
		for kind, call := range echo.Kinds {
			var last error
			hosttest.Eventually(t, what+" answers "+kind+" "+when, func() bool {
				last = call(t.Context(), r, nil, nil).Err
				if last != nil && strings.Contains(last.Error(), "credentials stay here") {
					t.Fatalf("%s, %s, %s: %v", what, kind, when, last)
				}
				return last == nil
			})
		}
	}
}
