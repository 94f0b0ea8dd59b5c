// Command operator calls the host's service with a key, without being a plugin: it lists
// whose settings there are.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1delegate"
)

func main() { devhost.Main(run) }

func run(ctx context.Context) error {
	host := flag.String("host", "https://127.0.0.1:8443", "the host's base URL")
	flag.Parse()

	key, err := os.ReadFile("run/operator-key")
	if err != nil {
		return err
	}

	tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: "run/grey"})
	if err != nil {
		return err
	}

	tls.Certificates, tls.GetClientCertificate = nil, nil // the key alone says who calls

	var protocols http.Protocols

	protocols.SetHTTP2(true)

	httpClient := &http.Client{Transport: &http.Transport{TLSClientConfig: tls, Protocols: &protocols}}
	credentials := connectplugin.AuthInterceptor(connectplugin.NewAPIKeyAuth(string(key), nil))
	kv := kvv1delegate.New(kvv1connect.NewKVServiceClient(httpClient, *host, connect.WithInterceptors(credentials)))

	for res, err := range kv.List(ctx, "") {
		if err != nil {
			return err
		}

		fmt.Println(res.GetKey())
	}

	return nil
}
