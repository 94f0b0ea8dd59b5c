//go:build unix

package certificates_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A plugin enrols with credentials that a container platform mounted: they belong to another
// user, and a group that the process is in may read them. Those that everybody may read are
// refused, in words that name the file.
func TestAudit_USE31_APluginEnrolsWithAMountedSecret(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	const another = 65534
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	for name, c := range map[string]struct {
		mode fs.FileMode
		ok   bool
	}{"for our group": {0o440, true}, "for everybody": {0o444, false}, "for others": {0o404, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "run")
			if err := host.Authority.WriteCredentials(dir, "api"); err != nil {
				t.Fatal(err)
			}
			key := filepath.Join(dir, "tls.key")
			if err := errors.Join(os.Chown(key, another, os.Getegid()), os.Chmod(key, c.mode)); err != nil {
				t.Skipf("this system gives no file away: %v", err)
			}
			tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir, Logger: hosttest.Logger(t)})
			if !c.ok {
				if err == nil || !strings.Contains(err.Error(), key) {
					t.Errorf("%v, want the file's name", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			host.Enrol(t, "api", func(cfg *connectplugin.ClientConfig) { cfg.TLS = tls })
		})
	}
}
