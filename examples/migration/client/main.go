// Command client is a client in the manner of the library before: it dispenses the host's own
// plugin, asks the registry for the service of another one, and calls that with an
// http.Client of its own that adds the identity.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	greeterv1 "github.com/masegraye/connect-plugin-go/examples/greeter/gen/greeter/v1"
	"github.com/masegraye/connect-plugin-go/examples/greeter/gen/greeter/v1/greeterv1connect"
	kvv1 "github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

func main() {
	host := flag.String("host", "http://127.0.0.1:8080", "the host's base URL")
	fields := flag.String("fields", "", "the new fields: open, secure, or nothing")
	dispense := flag.Bool("dispense", true, "use the host's own plugin, which a mux of services alone does not serve")
	flag.Parse()

	if err := run(context.Background(), *host, *fields, *dispense); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, host, fields string, dispense bool) error {
	cfg := connectplugin.ClientConfig{
		Endpoint: host, SelfID: "client", SelfVersion: "1.0.0",
		Metadata: connectplugin.PluginMetadata{
			Name: "Client", Version: "1.0.0",
			Requires: []connectplugin.ServiceDependency{{Type: "greeter", MinVersion: "1.0.0"}},
		},
	}
	if dispense {
		cfg.Plugins = connectplugin.PluginSet{"kv": &kvv1plugin.KVServicePlugin{}}
	}

	if err := fill(&cfg, fields); err != nil {
		return err
	}

	client, err := connectplugin.NewClient(cfg)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // the process ends

	if err := client.Connect(ctx); err != nil {
		return err
	}

	if dispense {
		if err := useHostPlugin(ctx, client); err != nil {
			return err
		}
	}

	return greet(ctx, client, cfg, host)
}

// useHostPlugin stores a value in the host and reads it again.
func useHostPlugin(ctx context.Context, client *connectplugin.Client) error {
	raw, err := client.Dispense("kv")
	if err != nil {
		return err
	}

	kv := raw.(kvv1connect.KVServiceClient) //nolint:errcheck,forcetypeassert // as it was written before

	if _, err := kv.Put(ctx, &kvv1.PutRequest{Key: "name", Value: []byte("Ada")}); err != nil {
		return err
	}

	resp, err := kv.Get(ctx, &kvv1.GetRequest{Key: "name"})
	if err != nil {
		return err
	}

	fmt.Printf("name is %s\n", resp.GetValue())

	return nil
}

// greet calls the plugin through the host.
func greet(ctx context.Context, client *connectplugin.Client, cfg connectplugin.ClientConfig, host string) error {
	found, err := client.RegistryClient().DiscoverService(ctx, connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{
		ServiceType: "greeter", MinVersion: "1.0.0",
	}))
	if err != nil {
		return err
	}

	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:errcheck,forcetypeassert // that is what it is
	transport.TLSClientConfig = cfg.TLS

	own := &http.Client{Transport: &identity{client: client, next: transport}}
	greeter := greeterv1connect.NewGreeterServiceClient(own, host+found.Msg.GetEndpoint().GetEndpointUrl())

	resp, err := greeter.Greet(ctx, &greeterv1.GreetRequest{Name: "Ada"})
	if err != nil {
		return err
	}

	fmt.Println(resp.GetGreeting())

	return nil
}

// identity adds to every request what the host issued.
type identity struct {
	client *connectplugin.Client
	next   http.RoundTripper
}

func (i *identity) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Plugin-Runtime-Id", i.client.RuntimeID())
	r.Header.Set("Authorization", "Bearer "+i.client.RuntimeToken())

	return i.next.RoundTrip(r)
}
