//go:build unix

// Command demo runs the example: a host and three plugins as processes, over TLS,
// in a temporary directory. It ends with exit code 1 if one answer was wrong, or
// if anything is left running or on disk. With -stay it stays up at the end, for
// whoever looks at it.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/masegraye/connect-plugin-go/examples/urlshortener/data"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/cli"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/demo"
)

func main() {
	stay := flag.Duration("stay", 0, "how `long` everything goes on at the end, such as 10m")
	flag.Parse()

	cli.Main(func(ctx context.Context) error {
		return demo.Run(ctx, demo.Config{URLs: data.URLs(), Out: os.Stdout, Stay: *stay})
	})
}
