// Command worker is a plugin that is granted the host's log, and writes to it. With -as
// it tries that under another self id.
package main

import (
	"context"
	"flag"
	"fmt"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/gen/loggerv1delegate"
)

func main() { devhost.Main(run) }

func run(ctx context.Context) error {
	as := flag.String("as", "worker", "the self id")

	cfg, err := devhost.ClientConfig(as)
	if err != nil {
		return err
	}

	client, err := connectplugin.NewClient(cfg)
	if err != nil {
		return err
	}
	defer client.Leave(context.WithoutCancel(ctx)) //nolint:errcheck // the process ends

	if err := client.Connect(ctx); err != nil {
		return err
	}

	//docs:region capability
	grant, err := client.Capability(ctx, "logger", "1.0.0")
	if err != nil {
		return err
	}

	logger := loggerv1delegate.New(loggerv1connect.NewLoggerClient(grant.HTTPClient(), grant.BaseURL()))
	if err := logger.Log(ctx, "info", "work begins", map[string]string{"job": "7"}); err != nil {
		return err
	}

	//docs:end

	fmt.Println("logged")

	return nil
}
