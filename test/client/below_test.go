package client_test

import (
	"fmt"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// mountBelow serves hosts on one server of the user's own, each below a path, and returns the URL of that server.
func mountBelow(t *testing.T, authority *connectplugin.Authority, hosts map[string]http.Handler) string {
	t.Helper()
	secured, err := authority.HostTLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for path, h := range hosts {
		mux.Handle(path+"/", http.StripPrefix(path, h))
	}
	l, served := hosttest.Listen(t), make(chan struct{})
	server := &http.Server{Handler: mux, TLSConfig: secured, ReadHeaderTimeout: hosttest.Wait}
	go func() { _ = server.ServeTLS(l, "", ""); close(served) }()
	t.Cleanup(func() { _ = server.Close(); <-served })
	return "https://" + l.Addr().String()
}

func reach(t *testing.T, c *connectplugin.Client, base string) error {
	t.Helper()
	_, err := connectpluginv1connect.NewServiceRegistryClient(c.HTTPClient(), base).
		DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "echo"}))
	if err != nil {
		return err
	}
	for _, at := range []string{base, base + "/services/echo/-"} { // a host plugin, and one elsewhere
		if err := echo.CallUnary(t.Context(), echo.At(at, c.HTTPClient()), nil, nil).Err; err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

// HTTPClient reaches a host below a path with HostURL as the base, and with that of the host alone: the path is there once. So
// it is below a path that looks as one of the host's own.
func TestHTTPClient_BelowAPath(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/plugins", "/a/b", "/services", "/capabilities", "/connectplugin.v1.Host"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			host := echo.StartKindsHost(t, func(c *connectplugin.ServeConfig) { c.Hosts = []string{"127.0.0.1"} })
			at := mountBelow(t, host.Authority, map[string]http.Handler{path: host.Handler()})
			cfg := host.ClientConfig(t, "caller")
			cfg.HostURL, cfg.Metadata.Requires = at+path, hosttest.Requires("echo")
			c, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if err := c.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, base := range []string{at + path, at} {
				if err := reach(t, c, base); err != nil {
					t.Errorf("with %s: %v", base, err)
				}
			}
		})
	}
}

// What was made with the URL of a host below a path goes on to the host that discovery has then, below another one.
func TestHTTPClient_BelowAFormerPath(t *testing.T) {
	t.Parallel()
	first := echo.StartKindsHost(t, func(c *connectplugin.ServeConfig) { c.Hosts = []string{"127.0.0.1"} })
	second := echo.StartKindsHost(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.Hosts = first.Authority, []string{"127.0.0.1"}
	})
	before := mountBelow(t, first.Authority, map[string]http.Handler{"/before": first.Handler()})
	after := mountBelow(t, first.Authority, map[string]http.Handler{"/after": second.Handler()})
	d := connectplugin.NewStaticDiscovery(map[string][]connectplugin.Endpoint{"plugin-host": {{URL: before + "/before"}}})
	cfg := first.ClientConfig(t, "caller")
	cfg.HostURL, cfg.Discovery, cfg.Metadata.Requires = "", d, hosttest.Requires("echo")
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := reach(t, c, before+"/before"); err != nil {
		t.Fatal(err)
	}
	if err := first.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.RemoveService("plugin-host")
	d.AddEndpoint("plugin-host", connectplugin.Endpoint{URL: after + "/after"})
	hosttest.Eventually(t, "it is at the next host", func() bool {
		return c.Connect(t.Context()) == nil && c.Config().Endpoint == after+"/after"
	})
	for _, base := range []string{before + "/before", before, after + "/after", after} {
		if err := reach(t, c, base); err != nil {
			t.Errorf("with %s: %v", base, err)
		}
	}
}
