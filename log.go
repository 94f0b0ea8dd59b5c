package connectplugin

import (
	"log/slog"
	"strings"
	"unicode"
)

// Attribute keys of the log.
const (
	keyKind      = "kind"
	keyPeer      = "peer"
	keyRuntimeID = "runtime_id"
	keySelfID    = "self_id"
	keyProcedure = "procedure"
	keySubject   = "subject"
	keyReason    = "reason"
	keyError     = "error"
	keyAddr      = "addr"
	keyHost      = "host"
	keyWait      = "wait"
	keyExpires   = "expires_at"
	keyService   = "service"
	keyProvider  = "provider"
	keyOutcome   = "outcome"
	keyStatus    = "status"
	keyLatency   = "latency"
	keyIdentity  = "identity"
	keyKey       = "key_sha256"
)

// maxLoggedText bounds every text of an audit event and every text of strangers in
// the log, in bytes.
const maxLoggedText = 512

// printable bounds s and replaces what could forge a log line or confuse a
// terminal.
func printable(s string) string {
	if len(s) > maxLoggedText {
		s = s[:maxLoggedText] + "…"
	}
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// danger returns where to warn of plaintext and of an open policy: the configured logger,
// or the program's default one where none is. Who configured no log is told of these all
// the same.
func danger(configured *slog.Logger) *slog.Logger {
	if configured == nil {
		return slog.Default()
	}
	return configured
}
