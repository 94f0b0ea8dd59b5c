package connectplugin

import (
	"crypto/hmac"
	"fmt"
	"log/slog"
)

// redacted stands in for every secret in logs and error texts.
const redacted = "[redacted]"

// Secret is an enrolment secret: at least 16 random bytes that a plugin and its
// host share. It prints as [redacted] and, being a slice, cannot be compared
// with ==. The zero value holds no secret.
type Secret []byte

// Equal reports in constant time whether both secrets are the same; an empty
// secret equals nothing.
func (s Secret) Equal(other Secret) bool {
	return len(s) > 0 && hmac.Equal(s, other)
}

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// Format prints "[redacted]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]", for every text encoding.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
