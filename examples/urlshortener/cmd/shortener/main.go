// Command shortener shortens and resolves URLs from the shell.
//
//	shortener shorten URL...
//	shortener resolve CODE...
//	shortener batch [FILE]     shortens and resolves one URL a line, and compares
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	connectplugin "github.com/masegraye/connect-plugin-go"
	shortenerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1/shortenerv1connect"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/batch"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/cli"
)

func main() {
	flags := cli.NewPluginFlags("shortener")
	flag.Parse()

	cli.Main(func(ctx context.Context) error {
		config, err := flags.ClientConfig("1.0.0")
		if err != nil {
			return err
		}
		config.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "shortener"}}
		client, err := connectplugin.NewClient(config)
		if err != nil {
			return err
		}
		defer client.Leave(context.WithoutCancel(ctx)) //nolint:errcheck // the process ends
		if err := client.Connect(ctx); err != nil {
			return err
		}
		conn, err := client.Service(ctx, "shortener", "1.0.0")
		if err != nil {
			return err
		}

		return run(ctx, shortenerv1connect.NewShortenerServiceClient(conn.HTTPClient(), conn.BaseURL()), flag.Args())
	})
}

func run(ctx context.Context, client shortenerv1connect.ShortenerServiceClient, args []string) error {
	switch {
	case len(args) > 1 && args[0] == "shorten":
		for _, url := range args[1:] {
			resp, err := client.Shorten(ctx, &shortenerv1.ShortenRequest{Url: url})
			if err != nil {
				return fmt.Errorf("shorten %s: %w", url, err)
			}

			fmt.Println(resp.GetCode())
		}
	case len(args) > 1 && args[0] == "resolve":
		for _, code := range args[1:] {
			resp, err := client.Resolve(ctx, &shortenerv1.ResolveRequest{Code: code})
			if err != nil {
				return fmt.Errorf("resolve %s: %w", code, err)
			}

			fmt.Println(resp.GetUrl())
		}
	case len(args) > 0 && len(args) < 3 && args[0] == "batch":
		return runBatch(ctx, client, args[1:])
	default:
		return errors.New("write `shortener [flags] shorten URL...`, `resolve CODE...` or `batch [FILE]`")
	}

	return nil
}

func runBatch(ctx context.Context, client shortenerv1connect.ShortenerServiceClient, files []string) error {
	in := os.Stdin

	if len(files) > 0 {
		file, err := os.Open(files[0])
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // only read from

		in = file
	}

	data, err := io.ReadAll(in)
	if err != nil {
		return err
	}

	urls := strings.Split(strings.TrimSpace(string(data)), "\n")
	codes, shorten := batch.Shorten(ctx, client, urls, func(int) {})
	resolve := batch.Resolve(ctx, client, codes, urls, func(int) {})

	return errors.Join(batch.Print(os.Stdout, shorten, resolve), shorten.Err(), resolve.Err(), ctx.Err())
}
