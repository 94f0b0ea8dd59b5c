package router_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A plugin that names itself by a DNS name is dialled at the address from which it
// registered, and its certificate is verified under that name: one for the address alone,
// or for another name, does not do. One that names its address is verified under that.
func TestAudit_USE37_ANameIsDialledAtTheAddressThatRegistered(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	host := ca.Start(t, ca.Certify(t, hosttest.DNS("localhost"), hosttest.Loopback), func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"provider": {{echo.Type}, nil}, "caller": {nil, {echo.Type}}})
		hosttest.SetInstances(c.Policy, 100)
	})
	enrol := func(selfID string, edit func(*connectplugin.ClientConfig)) *connectplugin.Client {
		t.Helper()
		cfg := connectplugin.ClientConfig{HostURL: host.URL, SelfID: selfID, TLS: ca.TLS(nil), Secret: hosttest.Secret, Logger: hosttest.Logger(t)}
		edit(&cfg)
		c, err := connectplugin.NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c
	}
	caller := enrol("caller", hosttest.Requiring(echo.Type))
	for name, c := range map[string]struct {
		certificate func(*x509.Certificate)
		named       string
		served      bool
	}{
		"its name":               {hosttest.DNS("localhost"), "localhost", true},
		"its name, in capitals":  {hosttest.DNS("localhost"), "LocalHost", true},
		"its name, with a dot":   {hosttest.DNS("localhost"), "localhost.", true},
		"another name":           {hosttest.DNS("elsewhere.example"), "localhost", false},
		"the address alone":      {hosttest.Loopback, "localhost", false},
		"its address":            {hosttest.Loopback, "127.0.0.1", true},
		"a name for its address": {hosttest.DNS("localhost"), "127.0.0.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan string, 64)
			handler := &hosttest.Resident{Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen <- r.TLS.ServerName + " " + r.RemoteAddr
				echo.Service{}.Handler().ServeHTTP(w, r)
			})}
			server := &tls.Config{Certificates: []tls.Certificate{*ca.Certify(t, c.certificate)}, MinVersion: tls.VersionTLS13}
			at := hosttest.ServeTLS(t, server, handler)
			provider := enrol("provider", hosttest.Providing(echo.Type))
			handler.Live(provider)
			err := hosttest.RegisterWith(t, provider, &connectpluginv1.RegisterServiceRequest{
				ServiceType: echo.Type, Version: "1.0.0", EndpointPath: "/",
				Metadata: map[string]string{"base_url": "https://" + c.named + at[strings.LastIndex(at, ":"):]},
			})
			if err != nil {
				t.Fatal(err)
			}
			to := echo.At(host.URL+"/services/"+echo.Type+"/"+provider.RuntimeID(), caller.HTTPClient())
			out := echo.CallUnary(t.Context(), to, nil, nil)
			if served := out.Err == nil; served != c.served || !served && connect.CodeOf(out.Err) != connect.CodeUnavailable {
				t.Fatalf("%v, want it served: %t", out.Err, c.served)
			}
			if c.served && !strings.Contains(<-seen, " 127.0.0.1:") {
				t.Error("it was dialled elsewhere")
			}
		})
	}
}

// A name of this machine is that of the address that registered, and not of another that the name
// may mean as well or the plugin may have.
func TestAudit_USE37_ANameOfAnotherAddressIsRefused(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"provider": {{echo.Type}, nil}})))
	provider := host.Enrol(t, "provider", hosttest.Providing(echo.Type))
	registry := func(from string) func(baseURL string) error {
		cfg := host.StrangerTLS()
		dialer := &tls.Dialer{Config: cfg, NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}}
		client := hosttest.HTTPClient(t, cfg)
		transport, _ := client.Transport.(*http.Transport)
		transport.DialTLSContext = dialer.DialContext
		return func(baseURL string) error {
			_, err := connectpluginv1connect.NewServiceRegistryClient(client, host.URL).RegisterService(t.Context(), hosttest.WithCredentials(
				&connectpluginv1.RegisterServiceRequest{
					ServiceType: echo.Type, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": baseURL},
				}, provider.RuntimeID(), provider.RuntimeToken()))
			return err
		}
	}
	for from, urls := range map[string]map[string]bool{
		"127.0.0.1": {"https://localhost:1": true, "https://LOCALHOST.:1": true, "https://127.0.0.1:1": true, "https://127.0.0.2:1": false},
		"127.0.0.2": {"https://localhost:1": false, "https://LOCALHOST.:1": false, "https://127.0.0.1:1": false, "https://127.0.0.2:1": true},
	} {
		register := registry(from)
		for url, allowed := range urls {
			if err := register(url); allowed && err != nil || !allowed && connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("%s, registered from %s: %v", url, from, err)
			}
		}
	}
}
