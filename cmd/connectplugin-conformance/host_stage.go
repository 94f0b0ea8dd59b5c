package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Self ids that the host under test knows, and one that it does not.
const (
	selfProvider = "conformance.provider"
	selfStranger = "conformance.stranger"

	typeNobody    = "conformance.nobody"    // allowed to the caller, provided by nobody
	typeForbidden = "conformance.forbidden" // allowed to nobody
)

const (
	privateFile = 0o600
	privateDir  = 0o700
	startTime   = 20 * time.Second
	tryAgain    = 50 * time.Millisecond
)

// hostTable plays plugins to a host.
type hostTable struct {
	*table

	options   *options
	dir       string
	addr      string
	secret    []byte
	authority *connectplugin.Authority
	process   *process
}

// playPlugins plays all that a host is asked for.
func playPlugins(ctx context.Context, o *options, t *table) {
	h := &hostTable{table: t, options: o, secret: newSecret()}
	if err := h.prepare(ctx); err != nil {
		t.note("the kit's own credentials", err)
		return
	}
	defer func() { _ = os.RemoveAll(h.dir) }()
	if err := h.launch(); err != nil {
		t.note("the program starts", err)
		return
	}
	defer func() { h.process.kill() }()
	if !h.row(ctx, v1, "the host listens", h.listens) {
		return
	}
	t.head("TLS")
	h.transport(ctx)
	t.head("The handshake")
	h.handshakes(ctx)
	h.refusals(ctx)
	t.head("Identities")
	h.identities(ctx)
	t.head("The registry")
	h.registry(ctx)
	t.head("Services")
	h.services(ctx)
}

func (h *hostTable) prepare(ctx context.Context) error {
	var err error
	if h.dir, err = os.MkdirTemp("", "conformance"); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if h.authority, err = connectplugin.NewAuthority(connectplugin.AuthorityConfig{}); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	l, err := listen(ctx, loopback)
	if err != nil {
		return err
	}
	h.addr = l.Addr().String()
	if err := l.Close(); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	return h.writeHost()
}

// writeHost writes the certificate of the host, its key and the authority.
func (h *hostTable) writeHost() error {
	config, err := h.authority.HostTLS()
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	pair, err := config.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	// A plugin's directory holds the authority's certificate as a file.
	if err := h.authority.WriteCredentials(filepath.Join(h.dir, selfProvider), selfProvider); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	ca, err := os.ReadFile(filepath.Join(h.dir, selfProvider, "ca.crt"))
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := os.Mkdir(h.hostDir(), privateDir); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	var chain []byte
	for _, der := range pair.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	for name, data := range map[string][]byte{
		"tls.crt": chain, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), "ca.crt": ca,
	} {
		if err := os.WriteFile(filepath.Join(h.hostDir(), name), data, privateFile); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

func (h *hostTable) hostDir() string { return filepath.Join(h.dir, "host") }

func (h *hostTable) launch() (err error) {
	env := append(environment("", "", h.hostDir(), h.secret), envAddr+"="+h.addr)
	h.process, err = launch(h.options.command, env, h.options.verbose)
	return err
}

// listens waits until the host does.
func (h *hostTable) listens(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", h.addr)
		if err == nil {
			_ = conn.Close()
			return nil
		}
		select {
		case <-time.After(tryAgain):
		case <-h.process.done:
			return fmt.Errorf("%w; it said: %s", errEnded, h.process.said)
		case <-ctx.Done():
			return fmt.Errorf("%w; it said: %s", err, h.process.said)
		}
	}
}

// as opens a connection with the certificate of a self id.
func (h *hostTable) as(ctx context.Context, self string, f func(*wire) error) error {
	config, err := h.authority.PluginTLS(self)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	config.ServerName = "127.0.0.1"
	w, err := dial(ctx, h.addr, h.secret, config)
	if err != nil {
		return err
	}
	defer w.close()
	return f(w)
}

// proven is the secret that the kit's plugins prove: none to a host of the first version.
func (h *hostTable) proven() []byte {
	if h.first {
		return nil
	}
	return h.secret
}

// client is the configuration of one of the kit's plugins.
func (h *hostTable) client(self string) (connectplugin.ClientConfig, error) {
	config, err := h.authority.PluginTLS(self)
	if err != nil {
		return connectplugin.ClientConfig{}, fmt.Errorf("certificate: %w", err)
	}
	return connectplugin.ClientConfig{
		HostURL: "https://" + h.addr, SelfID: self, SelfVersion: version, Secret: h.proven(), TLS: config, ProtocolVersion: highestApp,
		Logger: h.options.logger(),
	}, nil
}
