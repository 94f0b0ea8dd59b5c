// Package book_test has the code that the documents quote, and runs it.
package book_test

import (
	"context"
	"errors"
	"expvar"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// storagePolicy is what the operator's guide shows of a policy.
func storagePolicy(storageSecret connectplugin.Secret) *connectplugin.Policy {
	//docs:region policy
	return &connectplugin.Policy{
		Plugins: map[string]connectplugin.PluginPolicy{
			// It has to show the certificate that the Authority gave "api", and calls two types.
			"api": {Requires: []string{"storage", "logger"}, Capabilities: []string{"clock"}},
			// It proves a secret, whichever certificate it shows, and is called at this one address.
			"storage": {
				Provides: []string{"storage"}, Secret: storageSecret,
				Endpoint: "https://10.0.0.7:9443", MaxInstances: 1,
			},
			// It has a certificate of the company's, and says at which port of its address it is called.
			"logger": {
				Provides: []string{"logger"}, Certificates: []string{"logger.example.com"}, AllowOwnAddress: true,
			},
		},
		// Several plugins may provide this type at the same time. Every other belongs to one.
		AllowMultiple: []string{"logger"},
		// Calls that may be made twice, so that the router may try another provider.
		Idempotent: []string{"/storage.v1.StorageService/Get"},
	}
	//docs:end
}

// readSecret is what the operator's guide shows of secrets.
//
//docs:region secret
func readSecret(path string) (connectplugin.Secret, error) {
	text, err := os.ReadFile(path)

	return connectplugin.Secret(strings.TrimSpace(string(text))), err
}

//docs:end

// decisions is what the operator's guide shows of the audit.
//
//docs:region audit
func decisions(log *slog.Logger, counts *expvar.Map) func(connectplugin.AuditEvent) {
	return func(e connectplugin.AuditEvent) {
		counts.Add(string(e.Kind), 1)
		log.Info("audit", "kind", e.Kind, "peer", e.Peer, "plugin", e.SelfID, "runtime_id", e.RuntimeID,
			"procedure", e.Procedure, "subject", e.Subject, "right", e.Right, "target", e.Target, "count", e.Count, "reason", e.Reason)
	}
}

//docs:end

// serve is what the operator's guide shows of a host that is steered while it runs.
//
//docs:region serve
func serve(ctx context.Context, host *connectplugin.Host, policies <-chan *connectplugin.Policy) error {
	served := make(chan error, 1)
	go func() { served <- host.ListenAndServe(ctx) }()

	for {
		select {
		case policy := <-policies: // read again at SIGHUP, or whenever the file changes
			if err := host.SetPolicy(policy); err != nil {
				slog.Error("the policy stays as it is", "error", err)
			}
		case err := <-served:
			return err
		}
	}
}

//docs:end

// renew is what the operator's guide shows of credentials for other machines.
//
//docs:region renew
func renew(ctx context.Context, authority *connectplugin.Authority, every time.Duration, dirs map[string]string) error {
	tick := time.NewTicker(every) // a third of AuthorityConfig.CertificateTTL
	defer tick.Stop()

	for {
		for selfID, dir := range dirs {
			if err := authority.WriteCredentials(dir, selfID); err != nil {
				return err
			}
		}

		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

//docs:end

// offboard is what the operator's guide shows of taking a plugin out.
func offboard(ctx context.Context, host *connectplugin.Host, selfID string) error {
	//docs:region offboard
	for _, plugin := range host.Plugins() {
		if plugin.SelfID != selfID {
			continue
		}

		if err := host.Drain(ctx, plugin.RuntimeID); err != nil { // no new calls; those in flight end
			return err
		}
	}

	host.RevokeSelf(selfID) // ended everywhere, and refused until Readmit or another policy
	//docs:end

	return nil
}

// passing is what docs/metadata.md shows of names that pass besides the usual ones.
func passing() *connectplugin.ServeConfig {
	return &connectplugin.ServeConfig{
		//docs:region metadata
		PassMetadata: []string{"X-Api-Key", "Accept-Language", "X-B3-Traceid"},
		//docs:end
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()

	cfg := passing()
	cfg.AllowInsecure, cfg.Policy = true, connectplugin.OpenPolicy()

	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestOperator(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	path := filepath.Join(dir, "secret")

	if err := os.WriteFile(path, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	secret, err := readSecret(path)
	if err != nil || len(secret) != 32 || secret.String() != "[redacted]" {
		t.Fatalf("secret %v of %d bytes, %v", secret, len(secret), err)
	}

	counts := new(expvar.Map).Init()
	h := newHost(t, &connectplugin.ServeConfig{
		Addr: "127.0.0.1:0", Policy: storagePolicy(secret), Audit: decisions(slog.Default(), counts),
	})
	ctx, cancel := context.WithCancel(t.Context())
	policies, served := make(chan *connectplugin.Policy), make(chan error, 1)

	go func() { served <- serve(ctx, h.Host, policies) }()

	t.Cleanup(func() {
		cancel()

		if err := <-served; err != nil {
			t.Error(err)
		}
	})

	renewed, stop := context.WithCancel(t.Context())
	stop()

	for selfID, want := range map[string]error{"api": nil, "storage": connectplugin.ErrHandshakeRefused} {
		credentials := filepath.Join(dir, selfID)
		if err := renew(renewed, h.authority, time.Hour, map[string]string{selfID: credentials}); err != nil {
			t.Fatal(err)
		}

		client := h.client(t, selfID, credentials)
		if err := client.Connect(t.Context()); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", selfID, err, want)
		}
	}

	if err := offboard(t.Context(), h.Host, "api"); err != nil {
		t.Error(err)
	}

	api := h.client(t, "api", filepath.Join(dir, "api"))
	if err := api.Connect(t.Context()); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
		t.Errorf("after its end api gets %v", err)
	}

	policies <- storagePolicy(secret)
	policies <- storagePolicy(secret) // taken when the first one is in force

	if err := api.Connect(t.Context()); err != nil {
		t.Error("under a new policy:", err)
	}

	if counts.Get(string(connectplugin.AuditIssued)) == nil || counts.Get(string(connectplugin.AuditPolicyChanged)) == nil {
		t.Errorf("counted were %s", counts)
	}
}

// client makes a client with the credentials in a directory.
func (h *bookHost) client(t *testing.T, selfID, dir string) *connectplugin.Client {
	t.Helper()

	tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}

	client, err := connectplugin.NewClient(connectplugin.ClientConfig{HostURL: h.url(t), SelfID: selfID, TLS: tls})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = client.Close() })

	return client
}
