package echo

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

var errNoCA = errors.New("ca.crt holds no certificate")

// Names of the files of a job's directory.
const (
	FileCA   = "ca.crt"
	FileCert = "tls.crt"
	FileKey  = "tls.key"
)

// ServerTLS is the server side of a foreign provider: it demands a certificate of the authority.
func (j Job) ServerTLS() (*tls.Config, error) {
	cert, roots, err := j.files()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
	}, nil
}

// ClientTLS is the client side of a foreign caller.
func (j Job) ClientTLS() (*tls.Config, error) {
	cert, roots, err := j.files()
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	if j.Present {
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}

func (j Job) files() (tls.Certificate, *x509.CertPool, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(j.Dir, FileCert), filepath.Join(j.Dir, FileKey))
	if err != nil {
		return cert, nil, fmt.Errorf("certificate: %w", err)
	}
	pem, err := os.ReadFile(filepath.Join(j.Dir, FileCA))
	if err != nil {
		return cert, nil, fmt.Errorf("authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return cert, nil, errNoCA
	}
	return cert, roots, nil
}
