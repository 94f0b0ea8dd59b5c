package book_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// readPolicy reads policy.json.
//
//docs:region readpolicy
func readPolicy(name string) (*connectplugin.Policy, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}

	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields() // a field that is misspelt would allow less, or more, than it says

	var p connectplugin.Policy
	if err := d.Decode(&p); err != nil {
		return nil, fmt.Errorf("%s%s: %w", name, lineOf(text, err), err)
	}

	if _, err := d.Token(); !errors.Is(err, io.EOF) { // another policy, as a bad merge leaves one, would change nothing
		return nil, fmt.Errorf("%s: something follows the policy", name)
	}

	return &p, nil
}

// lineOf says in which line of a text a mistake is. Of a field that there is not the error says the name alone.
func lineOf(text []byte, err error) string {
	var at int64

	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = syntax.Offset
	} else if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		at = kind.Offset
	} else {
		return ""
	}

	return fmt.Sprintf(":%d", bytes.Count(text[:min(at, int64(len(text)))], []byte("\n"))+1)
}

//docs:end

// openAudit opens the audit log with the key that connectpluginctl made.
//
//docs:region openaudit
func openAudit(dir string, log *slog.Logger) (*connectplugin.AuditSink, error) {
	text, err := os.ReadFile(filepath.Join(dir, "audit.key"))
	if err != nil {
		return nil, err
	}

	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("audit.key in %s is no PEM", dir)
	}

	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}

	private, _ := key.(ed25519.PrivateKey) // the sink refuses another key

	return connectplugin.NewAuditSink(connectplugin.AuditSinkConfig{
		Path: filepath.Join(dir, "audit.log"), Key: private, Logger: log,
		OnCheckpoint: func(c connectplugin.AuditCheckpoint) { // to where whoever writes the log does not write
			if text, err := json.Marshal(c); err == nil {
				if err := os.WriteFile(filepath.Join(dir, "kept.json"), text, 0o600); err != nil {
					log.Error("the checkpoint is not kept", "error", err)
				}
			}
		},
	})
}

//docs:end

func TestReadPolicy(t *testing.T) {
	t.Parallel()

	name := filepath.Join(t.TempDir(), "policy.json")

	for text, want := range map[string]string{
		`{"Plugins":{"api":{"Requires":["storage"],"Secret":"MDEyMzQ1Njc4OWFiY2RlZg=="}}}`: "",
		`{"Plugin":{}}`:                                             "unknown field",
		"{\"Plugins\":{}}\n>>>>>>> theirs\n{}":                      "something follows the policy",
		`{"Plugins":{"api":{"Secret":"as it is"}}}`:                 "base64",
		"{\n\"Plugins\": {\n\"api\": {\"Requires\": \"storage\"}}}": "policy.json:3: ",
		"{\n\"Plugins\": {}\n\"Public\": []}":                       "policy.json:3: ",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		p, err := readPolicy(name)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}

		if err == nil && !p.Plugins["api"].Secret.Equal(connectplugin.Secret("0123456789abcdef")) {
			t.Error("the secret differs")
		}
	}
}

func TestOpenAudit(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}

	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "audit.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}

	sink, err := openAudit(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	sink.Record(connectplugin.AuditEvent{Kind: connectplugin.AuditDenied})

	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}

	text, err := os.ReadFile(filepath.Join(dir, "kept.json"))
	if err != nil {
		t.Fatal(err)
	}

	var kept connectplugin.AuditCheckpoint
	if err := json.Unmarshal(text, &kept); err != nil || !kept.Verify(public) {
		t.Errorf("kept %s, %v", text, err)
	}
}
