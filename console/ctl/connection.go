package ctl

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/bom"
)

// connection says how to reach a host, and as whom.
type connection struct {
	host, selfID, credentials, secretFile string
	insecure                              bool
	timeout                               time.Duration
}

func (c *connection) flags(f *pflag.FlagSet) {
	f.StringVar(&c.host, "host", cmp.Or(os.Getenv("CONNECTPLUGIN_HOST"), "https://127.0.0.1:8443"),
		"base URL of the host (CONNECTPLUGIN_HOST)")
	f.StringVar(&c.selfID, "self-id", os.Getenv("CONNECTPLUGIN_SELF_ID"),
		"who you are to the host's policy (CONNECTPLUGIN_SELF_ID; else the self id that ca write put into --credentials, or operator)")
	f.StringVar(&c.credentials, "credentials", os.Getenv("CONNECTPLUGIN_CREDENTIALS"),
		"directory with tls.crt, tls.key and ca.crt, as ca write makes it (CONNECTPLUGIN_CREDENTIALS)")
	f.StringVar(&c.secretFile, "secret-file", os.Getenv("CONNECTPLUGIN_SECRET_FILE"),
		"file with the enrolment secret of the self id, if it has one (CONNECTPLUGIN_SECRET_FILE)")
	f.BoolVar(&c.insecure, "insecure", false, "speak plaintext to a host for development")
	f.DurationVar(&c.timeout, "timeout", dialTime, "how long to try to reach the host")
}

// dialTime is how long reaching the host takes at most, where nobody says.
const dialTime = 10 * time.Second

// operator is a connected client and what it calls.
type operator struct {
	selfID string
	client *connectplugin.Client
	read   adminv1connect.AdminReadServiceClient
	change adminv1connect.AdminChangeServiceClient
}

// open enrols with the host. Close the operator.
func (c *connection) open(ctx context.Context) (*operator, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	c.selfID = cmp.Or(c.selfID, c.certified(), defaultSelfID)
	cfg := connectplugin.ClientConfig{HostURL: c.host, SelfID: c.selfID, SelfVersion: "1.0.0", AllowInsecure: c.insecure, Timeout: c.timeout}
	var err error
	if !c.insecure {
		if cfg.TLS, err = c.tls(); err != nil {
			return nil, err
		}
	}
	if c.secretFile != "" {
		text, err := os.ReadFile(c.secretFile)
		if err != nil {
			return nil, fmt.Errorf("--secret-file: %w", err)
		}
		if err := bom.CheckSecret(text); err != nil {
			return nil, fmt.Errorf("--secret-file %s: %w", c.secretFile, err)
		}
		if cfg.Secret = connectplugin.Secret(bytes.TrimSpace(text)); len(cfg.Secret) == 0 {
			return nil, fmt.Errorf("--secret-file %s is empty: write the secret into it, or leave the flag out", c.secretFile)
		}
	}
	client, err := connectplugin.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	if err := client.Connect(ctx); err != nil {
		return nil, &enrolError{errors.Join(err, client.Close())}
	}
	by := client.HTTPClient()
	return &operator{
		selfID: c.selfID, client: client, read: adminv1connect.NewAdminReadServiceClient(by, c.host),
		change: adminv1connect.NewAdminChangeServiceClient(by, c.host),
	}, nil
}

// defaultSelfID is that of who says none.
const defaultSelfID = "operator"

// certified returns the self id for which an authority wrote the credentials, empty where they are
// others, or none.
func (c *connection) certified() string {
	if c.insecure || c.credentials == "" {
		return ""
	}
	leaf, err := leafIn(c.credentials)
	if err != nil || len(leaf.URIs) == 0 {
		return ""
	}
	selfID, ok := strings.CutPrefix(leaf.URIs[0].Path, "/plugin/")
	if !ok || strings.Contains(selfID, "/") {
		return ""
	}
	return selfID
}

// check refuses flags that contradict one another.
func (c *connection) check() error {
	plaintext := strings.HasPrefix(c.host, "http://")
	switch {
	case plaintext && !c.insecure:
		return wrongUsage("--host %s is plaintext: write https://, or add --insecure for a host for development", c.host)
	case !plaintext && c.insecure:
		return wrongUsage("--insecure speaks plaintext: write --host http://ADDRESS:PORT, or leave it out for %s", c.host)
	case !plaintext && !strings.HasPrefix(c.host, "https://"):
		return wrongUsage("--host %s is no URL of a host: write --host https://ADDRESS:PORT", c.host)
	}
	return nil
}

func (c *connection) tls() (*tls.Config, error) {
	if c.credentials == "" {
		return nil, wrongUsage("--credentials is missing: name a directory that `connectpluginctl ca write` made, " +
			"or --insecure for a host without TLS")
	}
	cfg, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: c.credentials})
	if _, missing := os.Stat(c.credentials); errors.Is(missing, fs.ErrNotExist) {
		return nil, fmt.Errorf("--credentials: there is no directory %s: name one that `connectpluginctl ca write` made, "+
			"or make it with `connectpluginctl ca write %s %s --dir CA`", c.credentials, cmp.Or(c.selfID, defaultSelfID), c.credentials)
	}
	if err != nil {
		return nil, fmt.Errorf("--credentials: %w\nconnectpluginctl ca renew %s --dir CA writes them again, for another day or --ttl; "+
			"ca write does where they are damaged", err, c.credentials)
	}
	return cfg, nil
}

// leaveTime bounds how long the host is told that an operator leaves.
const leaveTime = 2 * time.Second

// close gives the identity back.
func (o *operator) close() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	_ = o.client.Leave(ctx) // the host lets the identity run out otherwise
	_ = o.client.Close()
}

// with opens a connection, calls f and closes it.
func (t *tool) with(ctx context.Context, f func(context.Context, *operator) error) error {
	o, err := t.to.open(ctx)
	if err != nil {
		return err
	}
	defer o.close()
	return f(ctx, o)
}
