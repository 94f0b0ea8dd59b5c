package ctl

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/bom"
	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// authority are the commands about a certificate authority. They need no host.
func (t *tool) authority() *cobra.Command {
	var dir, domain string
	var ttl time.Duration
	c := group("ca", "make a certificate authority, and write, list and renew credentials")
	c.PersistentFlags().DurationVar(&ttl, "ttl", 0, "how long written credentials are valid, such as 720h (default 24h)")
	c.PersistentFlags().StringVar(&dir, "dir", "", "directory of the authority")
	load := func() (*connectplugin.Authority, error) {
		if dir == "" {
			return nil, wrongUsage("--dir is missing: name the directory of the authority")
		}
		if ttl < 0 {
			return nil, wrongUsage("--ttl %s is negative: write how long the credentials are to be valid, such as 720h", ttl)
		}
		a, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir, CertificateTTL: ttl})
		if errors.Is(err, fs.ErrNotExist) && !holdsHalf(dir) {
			err = fmt.Errorf("--dir: there is no authority in %s: name another, or make one with `connectpluginctl ca new --dir %[1]s`", dir)
		}
		return a, err
	}
	fresh := &cobra.Command{Use: "new", Short: "make an authority in --dir", Args: exactly(), RunE: func(*cobra.Command, []string) error {
		if dir == "" {
			return wrongUsage("--dir is missing: name a directory for the authority")
		}
		if c.PersistentFlags().Changed("ttl") {
			return wrongUsage("--ttl is how long written credentials are valid: write it with ca write and ca renew")
		}
		a, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: dir, TrustDomain: domain})
		if errors.Is(err, fs.ErrExist) && !holdsHalf(dir) {
			return fmt.Errorf("%s holds an authority already: use it with ca write, or name another --dir", dir)
		}
		if err != nil {
			return err
		}
		return t.made(dir, a)
	}}
	fresh.Flags().StringVar(&domain, "trust-domain", "", "trust domain; empty makes one that no other authority has")
	c.AddCommand(fresh, t.caWrite(load), t.caRenew(load), t.caList())
	return c
}

// made says that there is an authority now.
func (t *tool) made(dir string, a *connectplugin.Authority) error {
	if t.json {
		return json.NewEncoder(t.out).Encode(map[string]string{"directory": dir, "trustDomain": a.TrustDomain()})
	}
	_, err := fmt.Fprintf(t.out, "made an authority of the trust domain %s in %s; whoever reads that directory can be any plugin\n",
		a.TrustDomain(), line(dir))
	return err
}

func (t *tool) caWrite(load func() (*connectplugin.Authority, error)) *cobra.Command {
	var hosts []string
	c := &cobra.Command{Use: "write SELF_ID DIR", Short: "write credentials of a self id", Args: exactly("SELF_ID", "DIR")}
	c.Flags().StringSliceVar(&hosts, "name", nil, "host names and addresses under which the plugin serves (default localhost, 127.0.0.1, ::1)")
	c.RunE = func(_ *cobra.Command, args []string) error {
		a, err := load()
		if err != nil {
			return err
		}
		if err := a.WriteCredentials(args[1], args[0], hosts...); err != nil {
			return err
		}
		return t.credentials(args[1])
	}
	return c
}

func (t *tool) caRenew(load func() (*connectplugin.Authority, error)) *cobra.Command {
	return &cobra.Command{
		Use: "renew DIR", Short: "renew the credentials in a directory, with the same key and names", Args: exactly("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			a, err := load()
			if err != nil {
				return err
			}
			leaf, err := leafIn(args[0])
			if err != nil {
				return err
			}
			identity := identityOf(leaf)
			selfID := identity[strings.LastIndexByte(identity, '/')+1:]
			if a.PluginIdentity(selfID) != identity {
				return fmt.Errorf("%s: the certificate is that of %q, which this authority does not certify", args[0], identity)
			}
			names := leaf.DNSNames
			for _, ip := range leaf.IPAddresses {
				names = append(names, ip.String())
			}
			key := filepath.Join(args[0], "tls.key")
			if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s is missing, and renewing keeps the key: put it back, or write new credentials with a new key, which "+
					"pins of the former one do not accept, with `connectpluginctl ca write %s %s --dir CA`", key, selfID, args[0])
			}
			if err := ownsKey(key, leaf); err != nil {
				return err
			}
			if err := a.WriteCredentials(args[0], selfID, names...); err != nil {
				return err
			}
			return t.credentials(args[0])
		},
	}
}

// ownsKey refuses a key that is not the one of the certificate beside it. Whose credentials are renewed is read from that certificate, and
// others' certificates are no secret: whoever may write into the directory would have its own key certified under another name.
func ownsKey(path string, leaf *x509.Certificate) error {
	text, err := certs.ReadPrivateFile(path)
	if err != nil {
		return err
	}
	key, err := certs.ParseKey(text)
	if errors.Is(err, certs.ErrPEM) {
		return nil // writing says what to do about it
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if public, ok := leaf.PublicKey.(interface {
		Equal(other crypto.PublicKey) bool
	}); !ok || !public.Equal(key.Public()) {
		return fmt.Errorf("%s does not fit %s beside it, of %q: one of them is another's, or damaged, and renewing certifies the key under "+
			"that name. Remove both, and write new credentials with `connectpluginctl ca write SELF_ID DIR --dir CA`", path, certFile,
			identityOf(leaf))
	}
	return nil
}

func (t *tool) caList() *cobra.Command {
	return &cobra.Command{
		Use: "list DIR", Short: "list the credentials below a directory, and when they end", Args: exactly("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := isDirectory(args[0]); err != nil {
				return err
			}
			var dirs []string
			err := filepath.WalkDir(args[0], func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && d.Name() == certFile {
					dirs = append(dirs, filepath.Dir(path))
				}
				return err
			})
			if err != nil {
				return err
			}
			return t.credentials(dirs...)
		},
	}
}

// certFile is the name of the certificate among credentials.
const certFile = "tls.crt"

// credentials lists what is in directories.
func (t *tool) credentials(dirs ...string) error {
	if t.json {
		return t.credentialsJSON(dirs)
	}
	b := t.table("DIRECTORY", "IDENTITY", "ENDS IN", "ENDS")
	for _, dir := range dirs {
		leaf, err := leafIn(dir)
		if err != nil {
			b.row(dir, err.Error())
			continue
		}
		b.row(dir, identityOf(leaf), until(timestamppb.New(leaf.NotAfter)), leaf.NotAfter.Format(time.RFC3339))
	}
	return b.end("no credentials")
}

// credentialsJSON is the list for programs.
func (t *tool) credentialsJSON(dirs []string) error {
	type entry struct {
		Directory string     `json:"directory"`
		Identity  string     `json:"identity,omitempty"`
		Ends      *time.Time `json:"ends,omitempty"`
		Error     string     `json:"error,omitempty"`
	}
	list := []entry{}
	for _, dir := range dirs {
		leaf, err := leafIn(dir)
		if err != nil {
			list = append(list, entry{Directory: dir, Error: err.Error()})
			continue
		}
		list = append(list, entry{Directory: dir, Identity: identityOf(leaf), Ends: &leaf.NotAfter})
	}
	return json.NewEncoder(t.out).Encode(list)
}

func identityOf(leaf *x509.Certificate) string {
	if len(leaf.URIs) > 0 {
		return leaf.URIs[0].String()
	}
	return leaf.Subject.CommonName
}

// damaged says what to do about a certificate that cannot be read.
func damaged(path string) error {
	return fmt.Errorf("%s is no certificate in PEM: remove it, and write the credentials again with ca write", path)
}

// holdsHalf reports whether one of the two files of an authority is in a directory.
func holdsHalf(dir string) bool {
	_, cert := os.Stat(filepath.Join(dir, "authority.crt"))
	_, key := os.Stat(filepath.Join(dir, "authority.key"))
	return (cert == nil) != (key == nil)
}

func leafIn(dir string) (*x509.Certificate, error) {
	path := filepath.Join(dir, certFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there are no credentials in %s: write them with `connectpluginctl ca write SELF_ID %[1]s --dir CA`", dir)
	}
	if err != nil {
		return nil, err
	}
	if err := bom.Check(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, damaged(path)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", damaged(path), err)
	}
	return leaf, nil
}
