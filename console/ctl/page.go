package ctl

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/masegraye/connect-plugin-go/console/page"
	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// pageFlags are those of the page.
type pageFlags struct {
	listen            string
	changes, tls      bool
	identities, names []string
}

func (t *tool) page() *cobra.Command {
	var f pageFlags
	c := &cobra.Command{Use: "page", Short: "serve a page that shows the host, and print a link to it that works once", Args: exactly()}
	c.Flags().StringVar(&f.listen, "listen", "127.0.0.1:0", "address, on loopback unless there is --tls")
	c.Flags().BoolVar(&f.changes, "changes", false, "let the page revoke, readmit and drain")
	c.Flags().BoolVar(&f.tls, "tls", false, "serve over TLS with the certificate in --credentials; who shows that certificate needs no link")
	c.Flags().StringSliceVar(&f.identities, "allow", nil,
		"identities of other certificates that need no link: spiffe://shop.example/plugin/auditor")
	c.Flags().StringSliceVar(&f.names, "name", nil, "host names by which the page is reached, beside its address")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return t.with(c.Context(), func(ctx context.Context, o *operator) error { return t.servePage(ctx, o, f) })
	}
	return c
}

func (t *tool) servePage(ctx context.Context, o *operator, f pageFlags) error {
	if len(f.identities) > 0 && !f.tls {
		return wrongUsage("--allow names certificates, which are shown over TLS alone: add --tls")
	}
	cfg := page.Config{Read: o.read, Names: f.names, Identities: f.identities}
	if f.changes {
		cfg.Change = o.change
	}
	if f.tls {
		own, err := t.to.pageTLS()
		if err != nil {
			return err
		}
		leaf, err := leafIn(t.to.credentials)
		if err != nil {
			return fmt.Errorf("--credentials: %w", err)
		}
		identity := certs.CertificateIdentity(leaf)
		if identity == "" {
			return errors.New("--credentials: its certificate names nobody: it needs a SPIFFE id, a DNS name or a common name")
		}
		t.warnOfNames(f.names, leaf)
		cfg.TLS, cfg.Identities = own, append(cfg.Identities, identity)
	}
	l, err := f.open(ctx)
	if err != nil {
		return err
	}
	s, err := page.New(cfg, l.Addr())
	if err != nil {
		_ = l.Close()
		return wrongUsage("page: %w", err)
	}
	fmt.Fprintf(t.out, "open %s\n(the link works once, for ten minutes; end with Ctrl-C)\n", s.Link())
	return s.Serve(ctx, l)
}

// open listens where the page is to be.
func (f *pageFlags) open(ctx context.Context) (net.Listener, error) {
	_, port, err := net.SplitHostPort(f.listen)
	if err == nil {
		_, err = net.DefaultResolver.LookupPort(ctx, "tcp", port)
	}
	if err != nil {
		return nil, wrongUsage("--listen %s is no address: %w; write host:port, such as 127.0.0.1:8080", f.listen, err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	tcp, _ := l.Addr().(*net.TCPAddr)
	if tcp == nil || (f.tls || tcp.IP.IsLoopback()) && (!tcp.IP.IsUnspecified() || len(f.names) > 0) {
		return l, nil
	}
	_ = l.Close()
	add := "--tls"
	switch {
	case f.tls:
		add = "--name"
	case len(f.names) == 0 && tcp.IP.IsUnspecified():
		add = "--tls and --name"
	}
	return nil, wrongUsage("--listen %s is not on loopback: add %s (--tls takes a certificate, --name a name by which the page is reached, "+
		"one for each)", f.listen, add)
}

// warnOfNames warns of names that a browser would miss in the certificate.
func (t *tool) warnOfNames(names []string, leaf *x509.Certificate) {
	for _, name := range names {
		if leaf.VerifyHostname(name) != nil {
			fmt.Fprintln(t.out, line("warning: the certificate in --credentials is not for "+name+
				": write it again with ca write SELF_ID DIR --name "+name))
		}
	}
}

// pageTLS is what the page serves with: the operator's certificate, for clients of the same authority.
// Unlike a plugin, the page is not reached by the host, but by whom it knows.
func (c *connection) pageTLS() (*tls.Config, error) {
	if c.insecure || c.credentials == "" {
		return nil, wrongUsage("--tls needs --credentials, for the certificate in it")
	}
	own, err := c.tls()
	if err != nil {
		return nil, err
	}
	clients, err := issuersOf(own)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: own.GetCertificate, ClientCAs: clients}, nil
}

// issuersOf returns the authorities that issued the operator's own certificate. Others among the roots
// speak for the plugins of other hosts, and none of them may name an operator of this one.
func issuersOf(own *tls.Config) (*x509.CertPool, error) {
	shown, err := own.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		return nil, fmt.Errorf("--credentials: %w", err)
	}
	leaf, err := x509.ParseCertificate(shown.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("--credentials: %w", err)
	}
	between := x509.NewCertPool()
	for _, der := range shown.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: own.ClientCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("--credentials: its own certificate is of none of its authorities: %w", err)
	}
	pool := x509.NewCertPool()
	for _, chain := range chains {
		pool.AddCert(chain[len(chain)-1])
	}
	return pool, nil
}
