package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// pairFiles are the files of a FileSource under test.
type pairFiles struct {
	t         testing.TB
	cert, key string
}

func newPairFiles(tb testing.TB) pairFiles {
	tb.Helper()

	dir := tb.TempDir()

	return pairFiles{t: tb, cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
}

// writeInPlace overwrites the files without any care, as cp does.
func (f pairFiles) writeInPlace(cert *tls.Certificate) {
	f.t.Helper()
	f.writeCert(certs.EncodeCertificates(cert.Certificate...))
	f.writeKey(cert)
}

func (f pairFiles) writeCert(data []byte) {
	f.t.Helper()

	if err := os.WriteFile(f.cert, data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f pairFiles) writeKey(cert *tls.Certificate) {
	f.t.Helper()

	data, err := certs.EncodeKey(cert.PrivateKey)
	if err != nil {
		f.t.Fatal(err)
	}

	if err := os.WriteFile(f.key, data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f pairFiles) source(now time.Time, roots *x509.CertPool, logger *slog.Logger) *certs.FileSource {
	f.t.Helper()

	source, err := certs.NewFileSource(certs.FileConfig{CertFile: f.cert, KeyFile: f.key, Roots: roots, Logger: logger}, now)
	if err != nil {
		f.t.Fatalf("NewFileSource: %v", err)
	}

	return source
}

func TestFileSourceTakesOverWholePairsOnly(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca := newCA(t, certs.ECDSA, time.Hour, now)
	leaf := func(name string) *tls.Certificate {
		return issue(t, ca, newRequest(t, pluginID(name), time.Minute), now)
	}
	one, two, three := leaf("one"), leaf("two"), leaf("three")
	foreign := issue(t, newCA(t, certs.ECDSA, time.Hour, now), newRequest(t, pluginID("foreign"), time.Minute), now)

	var log bytes.Buffer

	files := newPairFiles(t)
	files.writeInPlace(one)
	source := files.source(now, ca.Pool(), slog.New(slog.NewTextHandler(&log, nil)))
	at := now

	expect := func(step string, want *tls.Certificate) {
		t.Helper()

		at = at.Add(time.Second)
		if got := source.Certificate(at); !bytes.Equal(got.Certificate[0], want.Certificate[0]) {
			t.Errorf("%s: got the certificate of %s", step, certs.CertificateIdentity(got.Leaf))
		}
	}

	expect("unchanged", one)
	files.writeCert(certs.EncodeCertificates(two.Certificate...))
	expect("certificate without its key", one)
	expect("certificate without its key, again", one)

	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings for one refusal, want 1:\n%s", n, log.String())
	}

	files.writeKey(two)
	expect("both", two)

	if !strings.Contains(log.String(), "taken over") {
		t.Errorf("nothing in the log: %s", log.String())
	}

	if err := os.Remove(files.key); err != nil {
		t.Fatal(err)
	}

	expect("key removed", two)
	files.writeInPlace(foreign)
	expect("another authority's", two)

	if !strings.Contains(log.String(), "ca.crt is read when the program starts: after a new authority, start it again") {
		t.Errorf("the log does not say what to do: %s", log.String())
	}

	files.writeCert(certs.EncodeCertificates(three.Certificate...)[:200])
	files.writeKey(three)
	expect("half a certificate", two)
	files.writeCert(certs.EncodeCertificates(three.Certificate...))

	if err := os.Chmod(files.key, 0o644); err != nil {
		t.Fatal(err)
	}

	expect("key that others may read", two)

	if err := os.Chmod(files.key, 0o600); err != nil {
		t.Fatal(err)
	}

	expect("mended", three)

	if secret := string(mustKey(t, three)); strings.Contains(log.String(), strings.Split(secret, "\n")[1]) {
		t.Error("the log holds the private key")
	}
}

func mustKey(tb testing.TB, cert *tls.Certificate) []byte {
	tb.Helper()

	data, err := certs.EncodeKey(cert.PrivateKey)
	if err != nil {
		tb.Fatal(err)
	}

	return data
}

func TestFileSourceLooksOncePerInterval(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca := newCA(t, certs.ECDSA, time.Hour, now)
	one := issue(t, ca, newRequest(t, pluginID("one"), time.Minute), now)
	two := issue(t, ca, newRequest(t, pluginID("two"), time.Minute), now)
	files := newPairFiles(t)
	files.writeInPlace(one)
	source := files.source(now, nil, nil)
	files.writeInPlace(two)

	if got := source.Certificate(now.Add(time.Second - 1)); !bytes.Equal(got.Certificate[0], one.Certificate[0]) {
		t.Error("looked before the interval was over")
	}

	if got := source.Certificate(now.Add(time.Second)); !bytes.Equal(got.Certificate[0], two.Certificate[0]) {
		t.Error("did not look when the interval was over")
	}

	files.writeInPlace(one)

	if got := source.Certificate(now.Add(2*time.Second - 1)); !bytes.Equal(got.Certificate[0], two.Certificate[0]) {
		t.Error("looked twice in an interval")
	}
}

// Kubernetes replaces a directory behind a symbolic link, not the files.
func TestFileSourceFollowsLinks(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca := newCA(t, certs.ECDSA, time.Hour, now)
	root := t.TempDir()
	link := filepath.Join(root, "data")

	point := func(name string) *tls.Certificate {
		t.Helper()

		cert := issue(t, ca, newRequest(t, pluginID(name), time.Minute), now)
		dir := filepath.Join(root, name)

		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}

		pairFiles{t: t, cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}.writeInPlace(cert)

		if err := os.Symlink(dir, link+"-new"); err != nil {
			t.Fatal(err)
		}

		if err := os.Rename(link+"-new", link); err != nil {
			t.Fatal(err)
		}

		return cert
	}

	point("one")

	source := pairFiles{t: t, cert: filepath.Join(link, "tls.crt"), key: filepath.Join(link, "tls.key")}.source(now, ca.Pool(), nil)
	two := point("two")

	if got := source.Certificate(now.Add(time.Second)); !bytes.Equal(got.Certificate[0], two.Certificate[0]) {
		t.Errorf("got the certificate of %s", certs.CertificateIdentity(got.Leaf))
	}
}

func TestNewFileSourceRefuses(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca := newCA(t, certs.ECDSA, time.Hour, now)
	cert := issue(t, ca, newRequest(t, pluginID("a"), time.Minute), now)
	other := issue(t, ca, newRequest(t, pluginID("b"), time.Minute), now)

	for name, test := range map[string]struct {
		prepare func(files pairFiles)
		at      time.Time
		want    error
	}{
		"no files":    {func(pairFiles) {}, now, os.ErrNotExist},
		"no key":      {func(f pairFiles) { f.writeCert(certs.EncodeCertificates(cert.Certificate...)) }, now, os.ErrNotExist},
		"open key":    {func(f pairFiles) { f.writeInPlace(cert); _ = os.Chmod(f.key, 0o644) }, now, certs.ErrPermissions},
		"no PEM":      {func(f pairFiles) { f.writeInPlace(cert); f.writeCert([]byte("x")) }, now, certs.ErrPEM},
		"foreign key": {func(f pairFiles) { f.writeInPlace(cert); f.writeKey(other) }, now, nil},
		"expired":     {func(f pairFiles) { f.writeInPlace(cert) }, now.Add(time.Hour / 2), x509.CertificateInvalidError{}},
	} {
		files := newPairFiles(t)
		test.prepare(files)

		_, err := certs.NewFileSource(certs.FileConfig{CertFile: files.cert, KeyFile: files.key, Roots: ca.Pool()}, test.at)

		switch want := test.want.(type) { //nolint:errorlint // the kind of check, not an error in hand
		case nil:
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
		case x509.CertificateInvalidError:
			if got := (x509.CertificateInvalidError{}); !errors.As(err, &got) || got.Reason != x509.Expired {
				t.Errorf("%s: %v", name, err)
			}
		default:
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
	}
}

// Files are replaced in place, with every half-way state that this has, while
// clients of both sources connect without a pause. No handshake may fail.
func TestFileSourceRotationUnderLoad(t *testing.T) {
	t.Parallel()

	const (
		rotations = 30
		clients   = 4
	)

	ca := newCA(t, certs.ECDSA, time.Hour, time.Now())
	next := func() *tls.Certificate { return issue(t, ca, newRequest(t, pluginID("a"), time.Hour), time.Now()) }
	files := newPairFiles(t)
	files.writeInPlace(next())

	source, err := certs.NewFileSource(certs.FileConfig{
		CertFile: files.cert, KeyFile: files.key, Roots: ca.Pool(), Interval: time.Microsecond,
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}

	config := &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: ca.Pool(), ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
		GetCertificate: source.GetCertificate, GetClientCertificate: source.GetClientCertificate,
	}
	address, stop := serveTLS(t, config), make(chan struct{})

	var (
		group      sync.WaitGroup
		mu         sync.Mutex
		handshakes int
		seen       = make(map[string]bool)
	)

	for range clients {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}

				cert, err := dialTLS(t.Context(), address, config)

				mu.Lock()
				handshakes++
				if err != nil {
					t.Errorf("handshake %d: %v", handshakes, err)
				} else {
					seen[cert.SerialNumber.String()] = true
				}
				mu.Unlock()
			}
		})
	}

	var last *tls.Certificate
	for range rotations {
		last = next()
		whole := certs.EncodeCertificates(last.Certificate...)
		files.writeCert(whole[:len(whole)/2])
		waitForHandshake(&mu, &handshakes)
		files.writeCert(whole)
		waitForHandshake(&mu, &handshakes)
		files.writeKey(last)
		waitForHandshake(&mu, &handshakes)
	}

	close(stop)
	group.Wait()
	cert, err := dialTLS(t.Context(), address, config)
	if err != nil || cert.SerialNumber.Cmp(last.Leaf.SerialNumber) != 0 {
		t.Errorf("the last certificate is not in use: %v", err)
	}

	if len(seen) < rotations/2 {
		t.Errorf("clients saw %d certificates in %d rotations", len(seen), rotations)
	}

	t.Logf("%d handshakes, %d certificates seen, none failed", handshakes, len(seen))
}

// waitForHandshake waits until two more handshakes have ended: one may have begun before.
func waitForHandshake(mu *sync.Mutex, count *int) {
	read := func() int {
		mu.Lock()
		defer mu.Unlock()

		return *count
	}

	for target := read() + 2; read() < target; {
		<-time.After(time.Millisecond)
	}
}

func BenchmarkFileSource(b *testing.B) {
	now := time.Now()
	ca := newCA(b, certs.ECDSA, time.Hour, now)
	files := newPairFiles(b)
	files.writeInPlace(issue(b, ca, newRequest(b, pluginID("a"), time.Hour), now))
	source := files.source(now, ca.Pool(), nil)

	b.ReportAllocs()

	for b.Loop() {
		if source.Certificate(now) == nil {
			b.Fatal("no certificate")
		}
	}
}
