// Package verify makes sure that the program that runs is the program that was checked.
//
// A file is opened once, and its bytes go to a place that nobody can change while they are
// hashed: on Linux a memory file that is sealed, elsewhere a copy in a directory that only
// its owner may enter. That place, and never the file's name, is what is executed.
package verify

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Errors of [Open], for [errors.Is].
var (
	// ErrChecksum says that the bytes are others than those expected.
	ErrChecksum = errors.New("checksum does not match")
	// ErrSignature says that no signature of the key covers the bytes.
	ErrSignature = errors.New("signature does not match")
	// ErrScript says that the file names an interpreter, which nobody checked.
	ErrScript = errors.New("is a script")
	// ErrFile says that the file is none that can be executed.
	ErrFile = errors.New("is no program")
)

// maxSize is more than a program has.
const maxSize = 4 << 30

// Digest is the SHA-256 of a program.
type Digest [sha256.Size]byte

// String returns the digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// checksumPrefix may stand before a digest in hex.
const checksumPrefix = "sha256:"

// ParseDigest reads a digest in hex, with or without "sha256:" before it.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	raw, err := hex.DecodeString(strings.TrimPrefix(strings.ToLower(s), checksumPrefix))
	if err != nil || len(raw) != len(d) {
		return d, fmt.Errorf("is no SHA-256 in hex: write the %d digits that sha256sum prints", 2*len(d))
	}
	copy(d[:], raw)
	return d, nil
}

// Want is what a program has to be. The zero value accepts every program.
type Want struct {
	// Digest is the digest that it must have. Nil accepts any.
	Digest *Digest
	// Key and Signature demand an Ed25519 signature over the digest (its 32 bytes). An empty
	// key demands none.
	Key       ed25519.PublicKey
	Signature []byte
}

// check compares what was hashed with what is wanted.
func (w Want) check(d Digest) error {
	if w.Digest != nil && *w.Digest != d {
		return fmt.Errorf("%w: it has %s, expected is %s", ErrChecksum, d, *w.Digest)
	}
	if len(w.Key) == 0 {
		return nil
	}
	if len(w.Key) != ed25519.PublicKeySize || !ed25519.Verify(w.Key, d[:], w.Signature) {
		return fmt.Errorf("%w: the key did not sign the digest %s", ErrSignature, d)
	}
	return nil
}

// Binary is a program whose bytes do not change any more. It is safe for concurrent use.
// Close it when nothing starts it any more; what runs goes on.
type Binary struct {
	// Digest is that of exactly the bytes that are executed.
	Digest Digest

	image image
	path  string
	file  os.FileInfo // as it was when it was read
}

// Replaced reports whether the file from which the program was read is another one by now, or has another content, as far as
// its length and its time tell. One that is not there is none.
func (b *Binary) Replaced() bool {
	now, err := os.Stat(b.path)
	return err == nil && (!os.SameFile(b.file, now) || now.Size() != b.file.Size() || !now.ModTime().Equal(b.file.ModTime()))
}

// Open reads the program at path and keeps it if it is what is wanted.
func Open(path string, want Want) (*Binary, error) {
	b, err := open(path, want)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func open(path string, want Want) (*Binary, error) {
	from, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = from.Close() }()
	info, err := from.Stat()
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the path
	}
	hash := sha256.New()
	first := &prefix{}
	img, err := newImage(io.TeeReader(io.LimitReader(from, maxSize+1), io.MultiWriter(hash, first)))
	if err != nil {
		return nil, err
	}
	b := &Binary{Digest: Digest(hash.Sum(nil)), image: img, path: path, file: info}
	if err := errors.Join(first.check(), want.check(b.Digest)); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// openFile opens a regular file that somebody may execute.
func openFile(path string) (*os.File, error) {
	from, err := os.OpenFile(path, os.O_RDONLY|noBlock, 0) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the path
	}
	info, err := from.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%w: it is no regular file", ErrFile)
	case !executable(info):
		err = fmt.Errorf("%w: it is not executable", ErrFile)
	case info.Size() > maxSize:
		err = fmt.Errorf("%w: it is larger than %d bytes", ErrFile, int64(maxSize))
	}
	if err != nil {
		_ = from.Close()
		return nil, err
	}
	return from, nil
}

// prefix keeps the first bytes that are written to it, and counts.
type prefix struct {
	bytes []byte
	total int64
}

const prefixLen = 128

// Write implements io.Writer.
func (p *prefix) Write(b []byte) (int, error) {
	p.total += int64(len(b))
	p.bytes = append(p.bytes, b[:min(len(b), prefixLen-len(p.bytes))]...)
	return len(b), nil
}

func (p *prefix) check() error {
	if p.total > maxSize {
		return fmt.Errorf("%w: it is larger than %d bytes", ErrFile, int64(maxSize))
	}
	interpreter, ok := bytes.CutPrefix(p.bytes, []byte("#!"))
	if !ok {
		return nil
	}
	line, _, _ := bytes.Cut(interpreter, []byte("\n"))
	return fmt.Errorf("%w: it runs %q, which is not what was checked: start the interpreter as the program, "+
		"with the script among its arguments, or build a program", ErrScript, bytes.TrimSpace(line))
}
