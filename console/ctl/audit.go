package ctl

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/bom"
)

func (t *tool) audit() *cobra.Command {
	return group("audit", "make the key of an audit log, and check the log", t.auditKey(), t.auditVerify())
}

// Names of the files of a key, and of what is in them.
const (
	keyFile       = "audit.key"
	publicKeyFile = "audit.pub"
	keyBlock      = "PRIVATE KEY"
	publicBlock   = "PUBLIC KEY"
)

func (t *tool) auditKey() *cobra.Command {
	return &cobra.Command{
		Use: "key DIR", Short: "make an Ed25519 key: audit.key for the host, audit.pub for whoever checks", Args: exactly("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := mayHoldKey(args[0]); err != nil {
				return err
			}
			public, private, err := ed25519.GenerateKey(nil)
			if err != nil {
				return err
			}
			secret, err := x509.MarshalPKCS8PrivateKey(private)
			if err != nil {
				return err
			}
			open, err := x509.MarshalPKIXPublicKey(public)
			if err != nil {
				return err
			}
			for _, f := range []struct {
				name, block string
				der         []byte
				mode        os.FileMode
			}{{keyFile, keyBlock, secret, 0o600}, {publicKeyFile, publicBlock, open, 0o644}} {
				if err := create(filepath.Join(args[0], f.name), pem.EncodeToMemory(&pem.Block{Type: f.block, Bytes: f.der}), f.mode); err != nil {
					return err
				}
			}
			if t.json {
				names := map[string]string{"key": filepath.Join(args[0], keyFile), "publicKey": filepath.Join(args[0], publicKeyFile)}
				return json.NewEncoder(t.out).Encode(names)
			}
			_, err = fmt.Fprintln(t.out, line("wrote "+filepath.Join(args[0], keyFile)+" and "+publicKeyFile))
			return err
		},
	}
}

// mayHoldKey refuses a directory that is not there or holds a key, or half of one.
func mayHoldKey(dir string) error {
	for _, name := range []string{keyFile, publicKeyFile} {
		if path := filepath.Join(dir, name); exists(path) {
			return fmt.Errorf("%s is there already: move it and its other half away, or name another directory", path)
		}
	}
	return isDirectory(dir)
}

// isDirectory refuses what is no directory in words.
func isDirectory(path string) error {
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no directory %s", path)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no directory", path)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// create writes a file that is not there yet.
func create(name string, text []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

func (t *tool) auditVerify() *cobra.Command {
	var key, checkpoint string
	var from uint64
	c := &cobra.Command{Use: "verify LOG", Short: "check an audit log, with the files that were put aside", Args: exactly("LOG")}
	c.Flags().StringVar(&key, "key", "", "file with the public key (PEM), as audit key makes it")
	c.Flags().StringVar(&checkpoint, "checkpoint", "", "file with the last checkpoint (JSON) that was kept elsewhere: finds a cut tail")
	c.Flags().Uint64Var(&from, "from", 0,
		"number of the line that the files have to begin with, or with an earlier one: 1 is the log's first. Finds old files that are missing")
	c.RunE = func(_ *cobra.Command, args []string) error {
		public, err := readPublicKey(key)
		if err != nil {
			return err
		}
		kept, err := readCheckpoint(checkpoint)
		if err != nil {
			return err
		}
		report, err := verifyLog(public, kept, args[0])
		var missing *os.PathError
		switch {
		case errors.As(err, &missing):
			return err
		case err != nil:
			return &foundError{err}
		case from > 0 && report.First > from:
			return &foundError{fmt.Errorf("lines %d to %d are missing: the files begin with number %d", from, report.First-1, report.First)}
		case t.json:
			return json.NewEncoder(t.out).Encode(report)
		}
		t.holds(report)
		if kept == nil {
			fmt.Fprintln(t.out, "without --checkpoint nobody can tell whether the end was cut off")
		}
		return nil
	}
	return c
}

// verifyLog checks a log that may be being written: what looks like a change because a line was half
// there, or because a file was put aside meanwhile, is gone when it is looked at again.
func verifyLog(key ed25519.PublicKey, kept *connectplugin.AuditCheckpoint, path string) (report connectplugin.AuditReport, err error) {
	for range looks {
		var files []string
		if files, err = connectplugin.AuditFiles(path); err != nil {
			return report, err
		}
		report, err = connectplugin.VerifyAudit(key, kept, files...)
		if _, changed := errors.AsType[*connectplugin.AuditLogError](err); !changed {
			break
		}
	}
	return report, err
}

// looks is how often a log is looked at that was changed.
const looks = 3

// holds says what is known of a log that holds.
func (t *tool) holds(report connectplugin.AuditReport) {
	fmt.Fprintf(t.out, "the log holds: lines %d to %d, %d events, %d dropped, %d checkpoints\n",
		report.First, report.Last, report.Events, report.Dropped, report.Checkpoints)
	if report.First > 1 {
		fmt.Fprintf(t.out, "lines 1 to %d are not in these files\n", report.First-1)
	}
	if report.Unsigned > 0 {
		fmt.Fprintf(t.out, "%d lines after the last checkpoint are not signed yet\n", report.Unsigned)
	}
}

func readPublicKey(name string) (ed25519.PublicKey, error) {
	if name == "" {
		return nil, wrongUsage("--key is missing: name the file with the log's public key")
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if err := bom.Check(text); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != publicBlock {
		return nil, fmt.Errorf("%s: is no public key in PEM", name)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	public, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s: is a %T, and audit logs are signed with Ed25519", name, parsed)
	}
	return public, nil
}

func readCheckpoint(name string) (*connectplugin.AuditCheckpoint, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // none was kept
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if err := bom.Check(text); err != nil {
		return nil, fmt.Errorf("--checkpoint %s: %w", name, err)
	}
	var p connectplugin.AuditCheckpoint
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("--checkpoint %s is no checkpoint: %w", name, err)
	}
	if p.Sequence == 0 || p.Signature == "" {
		return nil, fmt.Errorf("--checkpoint %s is no checkpoint, which has seq, prev, time and signature: name the file that the host's "+
			"AuditSink kept elsewhere", name)
	}
	return &p, nil
}
