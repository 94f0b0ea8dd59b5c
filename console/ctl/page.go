package ctl

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/masegraye/connect-plugin-go/console/page"
)

func (t *tool) page() *cobra.Command {
	var listen string
	var changes bool
	c := &cobra.Command{Use: "page", Short: "serve a page that shows the host, and print a link to it that works once", Args: exactly()}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address on loopback")
	c.Flags().BoolVar(&changes, "changes", false, "let the page revoke, readmit and drain")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return t.with(c.Context(), func(ctx context.Context, o *operator) error {
			l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
			if err != nil {
				return err
			}
			cfg := page.Config{Read: o.read}
			if changes {
				cfg.Change = o.change
			}
			s, err := page.New(cfg, l.Addr())
			if err != nil {
				_ = l.Close()
				return wrongUsage("--listen: %w", err)
			}
			fmt.Fprintf(t.out, "open %s\n(the link works once, for ten minutes; end with Ctrl-C)\n", s.Link())
			return s.Serve(ctx, l)
		})
	}
	return c
}
