package goplugin

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrHello is wrapped by what is wrong with the first line of a plugin.
var ErrHello = errors.New("the plugin's first line does not do")

// Hello is what a plugin says on its first line.
type Hello struct {
	// Version is the one that it chose among those that were offered.
	Version int
	// Socket is the path of its Unix socket.
	Socket string
	// Certificate is the only one that it serves with.
	Certificate *x509.Certificate
}

// Fields of the line.
const (
	fieldCore = iota
	fieldVersion
	fieldNetwork
	fieldAddress
	fieldProtocol
	fieldCertificate
	fieldMultiplexing // says whether the broker does; newer hosts alone ask for it
	fieldsMost
)

const coreVersion = "1"

// ParseHello reads the first line of a plugin whose socket has to be in dir and whose version
// has to be one of versions.
func ParseHello(line, dir string, versions []int) (*Hello, error) {
	fields := strings.Split(strings.TrimSpace(line), "|")
	if len(fields) < fieldProtocol || len(fields) > fieldsMost || fields[fieldCore] != coreVersion {
		return nil, fmt.Errorf("%w: it is none of go-plugin: is it a plugin of that, with this cookie?", ErrHello)
	}
	h := &Hello{}
	var err error
	if h.Version, err = chosen(fields[fieldVersion], versions); err != nil {
		return nil, err
	}
	if h.Socket, err = socketIn(dir, fields[fieldNetwork], fields[fieldAddress]); err != nil {
		return nil, err
	}
	if len(fields) == fieldProtocol || fields[fieldProtocol] != "grpc" {
		return nil, fmt.Errorf("%w: it does not serve gRPC; those of net/rpc cannot be run", ErrHello)
	}
	if len(fields) == fieldCertificate || fields[fieldCertificate] == "" {
		return nil, fmt.Errorf("%w: it has no certificate, and would serve in plaintext: it was built without AutoMTLS", ErrHello)
	}
	if h.Certificate, err = parseCertificate(fields[fieldCertificate]); err != nil {
		return nil, err
	}
	return h, nil
}

func chosen(field string, versions []int) (int, error) {
	n, err := strconv.Atoi(field)
	if err != nil {
		return 0, fmt.Errorf("%w: the version is no number", ErrHello)
	}
	if slices.Contains(versions, n) {
		return n, nil
	}
	return 0, fmt.Errorf("%w: it speaks version %d of its own protocol, and PluginSpec.GoPlugin.Versions offers %v: write %d there "+
		"where its callers speak that", ErrHello, n, versions, n)
}

// socketIn accepts a socket in a directory where nobody else can put one.
func socketIn(dir, network, address string) (string, error) {
	if network != "unix" {
		return "", fmt.Errorf("%w: it listens on %.16q instead of a Unix socket", ErrHello, network)
	}
	if filepath.Clean(address) != address || filepath.Dir(address) != filepath.Clean(dir) {
		return "", fmt.Errorf("%w: its socket is not in the directory that it was given", ErrHello)
	}
	return address, nil
}

func parseCertificate(field string) (*x509.Certificate, error) {
	der, err := base64.RawStdEncoding.DecodeString(field)
	if err != nil {
		return nil, fmt.Errorf("%w: its certificate is no base64", ErrHello)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: its certificate cannot be read", ErrHello)
	}
	return cert, nil
}
