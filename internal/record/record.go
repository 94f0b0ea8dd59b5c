// Package record writes records of TLS 1.3 one by one, as no library does: of a byte, of nothing, and updates of the
// key between them. It is for tests and for attacks on hosts of one's own.
//
//nolint:wrapcheck // errors of the connection and of ciphers say it all
package record

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"
)

const (
	data      = 23 // content types (RFC 8446, section 5.1)
	handshake = 22

	headLen  = 5
	nonceLen = 12
	shortKey = 16 // of TLS_AES_128_GCM_SHA256
	longKey  = 32

	keyUpdate = "\x18\x00\x00\x01\x00" // that asks for none (RFC 8446, section 4.6.3)
)

var (
	errSecret = errors.New("the secret of the records was not told")
	errSuite  = errors.New("no records of this suite")
)

// Writer writes records in place of one side of TLS. They are gathered; Flush sends them. One goroutine uses it.
type Writer struct {
	// Size is how much one record carries at most; zero means what one may.
	Size int
	// Before is how many updates of the key come before each record.
	Before int

	out    *bufio.Writer
	hash   func() hash.Hash
	key    int
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// Keys has the log of keys of a configuration go to where [Client] and [Server] find them.
type Keys struct {
	mu  sync.Mutex
	log bytes.Buffer
}

// Write is what crypto/tls writes keys with.
func (k *Keys) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.log.Write(p)
}

// secret is the first one of a side's records.
func (k *Keys) secret(side string) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for line := range bytes.Lines(k.log.Bytes()) {
		var random, secret string
		if n, _ := fmt.Sscanf(string(line), side+"_TRAFFIC_SECRET_0 %s %s", &random, &secret); n > 1 {
			return hex.DecodeString(secret)
		}
	}
	return nil, errSecret
}

// Client returns a writer for a connection whose handshake is over, and on which the client wrote so many records and
// writes no more. Its configuration had keys as KeyLogWriter, for this connection alone.
func Client(conn *tls.Conn, keys *Keys, wrote uint64) (*Writer, error) {
	return newWriter(conn, keys, "CLIENT", wrote)
}

// Server is the same for the server of a connection. Its tickets are records, too.
func Server(conn *tls.Conn, keys *Keys, wrote uint64) (*Writer, error) {
	return newWriter(conn, keys, "SERVER", wrote)
}

func newWriter(conn *tls.Conn, keys *Keys, side string, wrote uint64) (*Writer, error) {
	const gathered, most = 64 << 10, 16 << 10
	w := &Writer{Size: most, out: bufio.NewWriterSize(conn.NetConn(), gathered), hash: sha256.New, key: shortKey}
	switch suite := conn.ConnectionState().CipherSuite; suite {
	case tls.TLS_AES_128_GCM_SHA256:
	case tls.TLS_AES_256_GCM_SHA384:
		w.hash, w.key = sha512.New384, longKey
	default:
		return nil, fmt.Errorf("%w: %s", errSuite, tls.CipherSuiteName(suite))
	}
	var err error
	if w.secret, err = keys.secret(side); err != nil {
		return nil, err
	}
	err = w.rekey()
	w.seq = wrote
	return w, err
}

// Write writes records that carry p.
func (w *Writer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		for range w.Before {
			if err := w.Update(); err != nil {
				return 0, err
			}
		}
		n := min(len(rest), w.Size)
		if err := w.seal(rest[:n], data); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// Empty writes a record that carries nothing.
func (w *Writer) Empty() error { return w.seal(nil, data) }

// Update updates the key.
func (w *Writer) Update() error {
	if err := w.seal([]byte(keyUpdate), handshake); err != nil {
		return err
	}
	var err error
	if w.secret, err = w.expand("traffic upd", w.hash().Size()); err != nil {
		return err
	}
	return w.rekey()
}

// Flush sends what was written.
func (w *Writer) Flush() error { return w.out.Flush() }

func (w *Writer) seal(p []byte, content byte) error {
	nonce := bytes.Clone(w.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, w.seq) {
		nonce[nonceLen-8+i] ^= b
	}
	w.seq++
	head := []byte{data, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[headLen-2:], uint16(len(p)+1+w.aead.Overhead())) //nolint:gosec // of a record
	text := append(bytes.Clone(p), content)
	_, err := w.out.Write(w.aead.Seal(head, nonce, text, head))
	return err
}

// rekey takes the keys of the secret (RFC 8446, section 7.3).
func (w *Writer) rekey() error {
	key, err := w.expand("key", w.key)
	if err != nil {
		return err
	}
	if w.iv, err = w.expand("iv", nonceLen); err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	w.seq = 0
	w.aead, err = cipher.NewGCM(block)
	return err
}

// expand is HKDF-Expand-Label (RFC 8446, section 7.1).
func (w *Writer) expand(label string, n int) ([]byte, error) {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))   //nolint:gosec // as label it is short
	info = append(append(info, byte(len(label))), label...) //nolint:gosec // short
	return hkdf.Expand(w.hash, w.secret, string(append(info, 0)), n)
}
