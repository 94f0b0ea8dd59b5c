// Command connectpluginctl looks at a running host and changes it. See connectpluginctl help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/masegraye/connect-plugin-go/console/ctl"
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // a write fails instead, and the command still leaves the host: `connectpluginctl tail | head`
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := ctl.Run(ctx, os.Args[1:], ctl.Streams{Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
