package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/bom"
)

// defaultInterval is the least time between two looks at the files.
const defaultInterval = time.Second

// Attribute keys of the log.
const (
	attrFile  = "file"
	attrError = "error"
)

// FileConfig configures a [FileSource].
type FileConfig struct {
	// CertFile holds the certificate and its intermediates, KeyFile the private
	// key, both PEM. Only its owner may reach the key. Both are required.
	CertFile, KeyFile string
	// Roots must verify the certificate before it is used. Nil means no check.
	Roots *x509.CertPool
	// Interval is the least time between two looks at the files; zero means one second.
	Interval time.Duration
	// Logger hears about certificates taken over and refused; nil means silence.
	Logger *slog.Logger
}

// FileSource is a certificate in files that somebody else replaces. A handshake
// looks whether the files have changed, at most once per interval, and takes a new
// pair over if it is whole: readable, matching, verified. Until then, and while the
// files are being written, it goes on with the last good pair. It has no goroutine,
// and is safe for concurrent use; no handshake waits for another's look.
type FileSource struct {
	// Fixed at creation.
	config FileConfig

	current  atomic.Pointer[filePair]
	nextLook atomic.Int64 // nanoseconds since 1970
	looking  atomic.Bool  // held by the one who looks
	refused  string       // the last error in the log; owned by who holds looking
}

// filePair is a certificate and the files that it was read from.
type filePair struct {
	cert              *tls.Certificate
	certInfo, keyInfo fs.FileInfo
}

// NewFileSource reads the files for the first time; unlike later, they must be good.
func NewFileSource(config FileConfig, now time.Time) (*FileSource, error) {
	if config.Interval <= 0 {
		config.Interval = defaultInterval
	}

	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}

	s := &FileSource{config: config}

	pair, err := s.load(now)
	if err != nil {
		return nil, err
	}

	s.current.Store(pair)
	s.nextLook.Store(now.Add(config.Interval).UnixNano())

	return s, nil
}

// Certificate returns the last good certificate, after a look at the files if one is due, as
// it is where the clock was set back.
func (s *FileSource) Certificate(now time.Time) *tls.Certificate {
	wait := time.Duration(s.nextLook.Load() - now.UnixNano())
	if (wait <= 0 || wait > s.config.Interval) && s.looking.CompareAndSwap(false, true) {
		s.look(now)
	}

	return s.current.Load().cert
}

// GetCertificate is for the field of tls.Config of that name.
func (s *FileSource) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.Certificate(time.Now()), nil
}

// GetClientCertificate is for the field of tls.Config of that name.
func (s *FileSource) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return s.Certificate(time.Now()), nil
}

// look takes new files over if they are good. The caller holds looking; look frees it.
func (s *FileSource) look(now time.Time) {
	defer s.looking.Store(false)
	s.nextLook.Store(now.Add(s.config.Interval).UnixNano())

	if current := s.current.Load(); unchanged(s.config.CertFile, current.certInfo) &&
		unchanged(s.config.KeyFile, current.keyInfo) {
		return
	}

	pair, err := s.load(now)
	if err != nil {
		if text := explained(err); text != s.refused {
			s.refused = text
			s.config.Logger.Warn("certificate files refused, the previous certificate stays in use",
				attrFile, s.config.CertFile, attrError, text)
		}

		return
	}

	s.current.Store(pair)
	s.refused = ""
	s.config.Logger.Info("certificate files taken over",
		attrFile, s.config.CertFile, ClaimNotAfter, pair.cert.Leaf.NotAfter)
}

// explained is the text of an error, and what to do where the authority is another one.
func explained(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return err.Error() + "; ca.crt is read when the program starts: after a new authority, start it again"
	}

	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return err.Error() + "; write them again, or set the clock of this machine"
	}

	return err.Error()
}

// unchanged reports whether the path still names the file that was read.
func unchanged(path string, read fs.FileInfo) bool {
	info, err := os.Stat(path)

	return err == nil && os.SameFile(info, read) &&
		info.Size() == read.Size() && info.ModTime().Equal(read.ModTime())
}

// load reads a pair from the files. Each is identified before it is read, so that
// a file which changes meanwhile differs at the next look.
func (s *FileSource) load(now time.Time) (*filePair, error) {
	certPEM, certInfo, err := readFile(s.config.CertFile, 0)
	if err != nil {
		return nil, err
	}

	keyPEM, keyInfo, err := readFile(s.config.KeyFile, othersAccess)
	if err != nil {
		return nil, err
	}

	chain, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.config.CertFile, err)
	}

	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, s.unfit(certPEM, keyPEM, err)
	}

	cert.Leaf = chain[0]
	if err := verifyChain(chain, s.config.Roots, now); err != nil {
		return nil, fmt.Errorf("%s: %w", s.config.CertFile, err)
	}

	return &filePair{cert: &cert, certInfo: certInfo, keyInfo: keyInfo}, nil
}

// unfit says which file is to blame for a pair that is none, where one alone is.
func (s *FileSource) unfit(certPEM, keyPEM []byte, err error) error {
	if marked := bom.Check(certPEM); marked != nil {
		return fmt.Errorf("%s: %w", s.config.CertFile, marked)
	}

	if marked := bom.Check(keyPEM); marked != nil {
		return fmt.Errorf("%s: %w", s.config.KeyFile, marked)
	}

	return fmt.Errorf("%s and %s: %w", s.config.CertFile, s.config.KeyFile, err)
}

// verifyChain verifies a chain against the roots, if there are any.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	if roots == nil {
		return nil
	}

	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}

	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("verify certificate: %w", err)
	}

	return nil
}
