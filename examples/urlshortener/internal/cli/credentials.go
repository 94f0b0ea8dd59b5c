package cli

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

const (
	secretFile = "secret"
	ownerOnly  = 0o600
	othersBits = 0o037 // a mounted secret of a container is readable by a group of its own
)

// ClientConfig returns how the plugin reaches its host: with the certificate and
// the secret in its directory, or as the host says that launched it.
func (f PluginFlags) ClientConfig(version string) (connectplugin.ClientConfig, error) {
	log := Logger()

	if connectplugin.Launched() {
		return connectplugin.ClientConfig{SelfID: f.selfID, SelfVersion: version, Logger: log}, nil
	}

	tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: *f.dir, Logger: log})
	if err != nil {
		return connectplugin.ClientConfig{}, f.explain(err)
	}

	secret, err := ReadSecret(*f.dir)
	if err != nil {
		return connectplugin.ClientConfig{}, f.explain(err)
	}

	return connectplugin.ClientConfig{
		HostURL: *f.host, SelfID: f.selfID, SelfVersion: version, TLS: tls, Secret: secret, Logger: log,
	}, nil
}

func (f PluginFlags) explain(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no credentials in %s; make them with `host enrol %s`, or name their directory with -dir: %w", *f.dir, f.selfID, err)
	}

	return err
}

// ReadSecret returns the enrolment secret in a plugin's directory.
func ReadSecret(dir string) (connectplugin.Secret, error) {
	path := filepath.Join(dir, secretFile)

	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}

	if info.Mode().Perm()&othersBits != 0 {
		return nil, fmt.Errorf("secret: %s can be read by others, or written by its group; chmod 0600 it", path)
	}

	data, err := os.ReadFile(path) //nolint:gosec // the path is the operator's
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}

	return connectplugin.Secret(bytes.TrimSpace(data)), nil
}

// WriteSecret writes a new enrolment secret to a plugin's directory. One that is
// there already stays.
func WriteSecret(dir string) error {
	path := filepath.Join(dir, secretFile)

	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, ownerOnly) //nolint:gosec // the path is the operator's
	if errors.Is(err, fs.ErrExist) {
		return nil
	}

	if err != nil {
		return fmt.Errorf("secret: %w", err)
	}

	_, err = file.WriteString(rand.Text() + rand.Text() + "\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("secret: %w", err)
	}

	return nil
}
