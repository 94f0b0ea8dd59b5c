package edge

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// errNoHTTP2 says that a peer agreed on TLS and on no protocol.
var errNoHTTP2 = errors.New("the peer does not ask for h2 (ALPN)")

// plaintextRecords are how requests of HTTP/1 begin, as long as the header of a record.
var plaintextRecords = []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO"}

// Who begins HTTP/2 in plaintext (RFC 9113, section 3.4) is told that this is TLS by an alert:
// protocol_version (RFC 8446, section 6).
const (
	plaintextHTTP2 = "PRI *"
	alertVersion   = "\x15\x03\x03\x00\x02\x02\x46"
)

// answerPlaintext tells who speaks HTTP in plaintext so, in words that it understands.
func answerPlaintext(err error) {
	record, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok || record.Conn == nil {
		return
	}
	_ = record.Conn.SetWriteDeadline(time.Now().Add(parting))
	switch begins := string(record.RecordHeader[:]); {
	case begins == plaintextHTTP2:
		_, _ = io.WriteString(record.Conn, alertVersion)
		return
	case !slices.Contains(plaintextRecords, begins):
		return
	}
	_, _ = io.WriteString(record.Conn, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"+
		"This server speaks HTTP/2 over TLS: write https:// instead of http://.\n")
}

// secure agrees on TLS. The state has the chains that were verified.
func (l *Listener) secure(ctx context.Context, raw *audible) (*tls.Conn, *tls.ConnectionState, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	raw.limit = newLimit(l.cfg.HandshakeTimeout, func() { cancel(context.DeadlineExceeded) })
	defer raw.limit.end()
	cfg, verified := certs.ScreenClients(l.cfg.TLS)
	conn := tls.Server(raw, cfg)
	err := certs.Agree(ctx, conn)
	raw.rest()
	raw.turns = nil
	if err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return nil, nil, ErrSlow
	}
	if err != nil {
		return nil, nil, cmp.Or(context.Cause(ctx), err) //nolint:wrapcheck // the listener's owner says what it means
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		return nil, nil, errNoHTTP2
	}
	state.VerifiedChains = verified()
	raw.agreed = true
	return conn, &state, nil
}
