package tokenstore

import (
	"encoding/base32"
	"encoding/base64"
	"io"
	"strings"
)

const (
	idBytes        = 16 // of randomness in a runtime id or grant id
	encodedIDBytes = 26 // that they take

	maxNameLength = 48
	unnamed       = "plugin"

	// maxDraws bounds how often an id is drawn that is in use already. A source of randomness that
	// repeats itself so often is broken.
	maxDraws = 16
)

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// drawID makes an id of 128 random bits, in lower-case letters and digits.
func drawID(random io.Reader) (string, error) {
	var raw [idBytes]byte
	if err := fill(raw[:], random); err != nil {
		return "", err
	}
	return idEncoding.EncodeToString(raw[:]), nil
}

// drawRuntimeID makes a runtime id that shows the self id, as far as that is fit to be shown.
func drawRuntimeID(selfID string, random io.Reader) (string, error) {
	id, err := drawID(random)
	if err != nil {
		return "", err
	}
	return sanitise(selfID) + "-" + id, nil
}

// Issuable reports whether a store could have issued a runtime id and a token: they have the
// form. It says nothing of whether one did.
func Issuable(runtimeID, token string) bool {
	at := len(runtimeID) - encodedIDBytes
	if at < 2 || runtimeID[at-1] != '-' || len(token) != tokenLength {
		return false
	}
	if _, err := idEncoding.DecodeString(runtimeID[at:]); err != nil {
		return false
	}
	_, err := base64.RawURLEncoding.DecodeString(token)
	name := runtimeID[:at-1]
	return err == nil && sanitise(name) == name
}

// sanitise reduces a self id to lower-case letters, digits and single hyphens between them, maxNameLength
// at most. It is never empty.
func sanitise(selfID string) string {
	var b strings.Builder
	b.Grow(min(len(selfID), maxNameLength))
	hyphen := false
	for _, c := range []byte(selfID) {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		default:
			hyphen = b.Len() > 0
			continue
		}
		if hyphen && b.Len() < maxNameLength-1 {
			b.WriteByte('-')
		}
		hyphen = false
		if b.Len() == maxNameLength {
			break
		}
		b.WriteByte(c)
	}
	if b.Len() == 0 {
		return unnamed
	}
	return b.String()
}
