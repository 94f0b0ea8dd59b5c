//go:build unix

package certs_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// A secret that is mounted into a container belongs to another user and is readable by
// a group that the process is in. It is accepted; what more people may reach is not.
func TestAudit_USE31_AMountedSecretIsAccepted(t *testing.T) {
	t.Parallel()

	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}

	const other, foreign = 65534, 65533

	own := os.Getegid()

	for name, c := range map[string]struct {
		uid, gid int
		mode     fs.FileMode
		ok       bool
	}{
		"mounted, 0440":                   {other, own, 0o440, true},
		"mounted, 0640":                   {other, own, 0o640, true},
		"mounted, 0040":                   {other, own, 0o040, true},
		"mounted, 0400":                   {other, own, 0o400, true},
		"mounted, for everyone":           {other, own, 0o444, false},
		"mounted, for others alone":       {other, own, 0o404, false},
		"mounted, the group may write":    {other, own, 0o460, false},
		"mounted, everyone may write":     {other, own, 0o442, false},
		"mounted, for a group not ours":   {other, foreign, 0o440, false},
		"our own, for our group":          {os.Geteuid(), own, 0o440, false},
		"our own, for us":                 {os.Geteuid(), own, 0o400, true},
		"our own, for a group not ours":   {os.Geteuid(), foreign, 0o640, false},
		"another's, for nobody but them":  {other, foreign, 0o600, true},
		"another's, the group may run it": {other, own, 0o450, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "tls.key")
			if err := errors.Join(os.WriteFile(path, []byte("secret"), 0o600), os.Chown(path, c.uid, c.gid), os.Chmod(path, c.mode)); err != nil {
				t.Skipf("this system gives no file away: %v", err)
			}

			data, err := certs.ReadPrivateFile(path)
			if c.ok && (err != nil || string(data) != "secret") {
				t.Errorf("refused: %v", err)
			}

			if !c.ok && !errors.Is(err, certs.ErrPermissions) {
				t.Errorf("%v, want ErrPermissions", err)
			}

			if !c.ok && !strings.Contains(err.Error(), "0440 is for a file of another owner") {
				t.Errorf("%v: it does not say whose file may have 0440", err)
			}
		})
	}
}

// mountedVariable is the file that a child of the test reads.
const mountedVariable = "CERTS_TEST_MOUNTED"

// A container's process is in groups beside its first, and is given a secret by one of those.
func TestAudit_USE31_AGroupBesideTheFirst(t *testing.T) {
	t.Parallel()

	if path := os.Getenv(mountedVariable); path != "" {
		if _, err := certs.ReadPrivateFile(path); err != nil {
			t.Fatal(err)
		}

		return
	}

	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}

	const other, beside = 65534, 65533

	path := filepath.Join(t.TempDir(), "tls.key")
	if err := errors.Join(os.WriteFile(path, []byte("secret"), 0o600), os.Chown(path, other, beside), os.Chmod(path, 0o440)); err != nil {
		t.Skipf("this system gives no file away: %v", err)
	}

	reads := func(groups ...uint32) (string, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), mountedVariable+"="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: groups}}
		out, err := cmd.CombinedOutput()

		if errors.Is(err, syscall.EPERM) {
			t.Skipf("this system lets nobody choose groups: %v", err)
		}

		return string(out), err
	}

	if out, err := reads(beside-1, beside); err != nil {
		t.Errorf("in the group: %v: %s", err, out)
	}

	if out, err := reads(beside - 1); err == nil || !strings.Contains(out, certs.ErrPermissions.Error()) {
		t.Errorf("not in the group: %v: %s", err, out)
	}
}
