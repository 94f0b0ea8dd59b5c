package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/glyphs"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/opening"
)

// Attribute keys of the log.
const (
	keyKind      = "kind"
	keyPeer      = "peer"
	keyRuntimeID = "runtime_id"
	keySelfID    = "self_id"
	keyProcedure = "procedure"
	keySubject   = "subject"
	keyRight     = "right"
	keyGrant     = "grant_id"
	keyTarget    = "target"
	keyReason    = "reason"
	keyCount     = "count"
	keyError     = "error"
	keyAddr      = "addr"
	keyEndpoint  = "endpoint"
	keyHost      = "host"
	keyWait      = "wait"
	keyService   = "service"
	keyProvider  = "provider"
	keyOutcome   = "outcome"
	keyStatus    = "status"
	keyLatency   = "latency"
	keyIdentity  = "identity"
	keyKey       = "key_sha256"
	keyName      = "name"
	keyDirection = "direction"

	keyRegistration = "registration_id"
	keyAuthProvider = "auth_provider"

	keyMore = "not_logged" // since the last line: of its kind, and in a plugin of any
)

// maxLoggedText bounds every text of an audit event and every text of strangers in
// the log, in bytes.
const maxLoggedText = 512

// printable bounds s and replaces what could forge a log line or confuse a
// terminal; a tab becomes a blank. A byte that is no UTF-8 becomes \xNN.
func printable(s string) string { return printableTo(s, maxLoggedText) }

// printableTo is printable with a bound.
func printableTo(s string, most int) string {
	if len(s) > most {
		s = s[:wholeRunes(s, most)] + "…"
	}
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !glyphs.Seen(r) }) < 0 {
		return s
	}
	var out strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd"):
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case glyphs.Seen(r):
			out.WriteRune(r)
		case r == '\t': // as in what a program of Go prints when it panics
			out.WriteByte(' ')
		default:
			out.WriteRune(unicode.ReplacementChar)
		}
	}
	return out.String()
}

// wholeRunes returns how many of the first n bytes do not split a character.
func wholeRunes(s string, n int) int {
	for at := n; at > n-utf8.UTFMax && at >= 0; at-- {
		if !utf8.RuneStart(s[at]) {
			continue
		}
		if r, size := utf8.DecodeRuneInString(s[at:]); at+size > n && (r != utf8.RuneError || size > 1) {
			return at
		}
		break
	}
	return n
}

// printableStack is printable without the bound, for a text of several lines.
func printableStack(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || glyphs.Seen(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// maxLoggedName bounds the names in the text of an event that says more than those.
const maxLoggedName = 128

// clipped bounds a name that is quoted in a text.
func clipped(s string) string {
	return printableTo(s, maxLoggedName)
}

// danger returns where to warn of plaintext and of an open policy: the configured logger,
// or the program's default one where none is. Who configured no log is told of these all
// the same.
func danger(configured *slog.Logger) *slog.Logger {
	if configured == nil {
		configured = slog.Default()
	}
	return guest.Log("Logger", configured)
}

// disablePlaintextWarning is the environment variable that silences the warning of
// plaintext where a program is known to run in development.
const disablePlaintextWarning = "CONNECTPLUGIN_DISABLE_TLS_WARNING"

// plaintextAllowed is what clients and plugins warn of.
const plaintextAllowed = "plaintext is allowed: AllowInsecure is set; use it for development only"

func warnPlaintext(configured *slog.Logger, text string) {
	if off, err := strconv.ParseBool(os.Getenv(disablePlaintextWarning)); err != nil || !off {
		danger(configured).Warn(text)
	}
}

// broken reports that a connection ended in the middle of something.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// internalError is the alert of a peer that has trouble of its own.
const internalError = "internal error"

// alerts are what the alerts of TLS (RFC 8446, section 6) mean between hosts and plugins,
// by what crypto/tls calls them.
var alerts = []struct{ alert, means string }{
	{"unknown certificate authority", "it does not know the authority of our certificate"},
	{"expired certificate", "our certificate has expired, or is not valid yet, as its clock says"},
	{"certificate required", "it demands a certificate, and none was shown"},
	{"bad certificate", "it does not accept our certificate: its authority, its time, its identity, what it is made for, " +
		"or its names (ServeConfig.Hosts), or there is none"},
	{"unknown certificate", "it does not accept our certificate"},
	{"unsupported certificate", "our certificate is not made for this: it needs the extended key usage of its side"},
	{"no application protocol", "it does not speak h2 (ALPN)"},
	{"protocol version not supported", "it does not speak TLS 1.3"},
	{"handshake failure", "it has no cipher suite, or no certificate, that this side takes"},
	{"unrecognized name", "it has no certificate for the name that was asked for"},
	{internalError, "something failed there, such as its TLS.GetCertificate; its log says what"},
}

// explainAlert says what an alert of the peer means.
func explainAlert(text string) string {
	for _, a := range alerts {
		if strings.Contains(text, a.alert) {
			return a.means
		}
	}
	return "it sent an alert"
}

// remoteError is how crypto/tls calls an alert of the peer.
const remoteError = "remote error"

// refusals are what a server's own errors mean, by what crypto/tls and this library say.
var refusals = []struct{ text, means string }{
	{remoteError, "the peer refuses this side: "},
	{"does not look like a TLS handshake", "the peer does not begin with TLS: it speaks plaintext"},
	{errNoHTTP2.Error(), "the peer does not offer h2 in ALPN (RFC 7301), which HTTP/2 over TLS needs"},
	{"unsupported application protocols", "the peer does not offer h2 in ALPN (RFC 7301), which HTTP/2 over TLS needs"},
	{certs.ErrNoneToShow.Error(), "this side has no certificate to show for now: its TLS.GetCertificate failed"},
	{"no certificates configured", "this side has no certificate for the name that the peer asked for, if it asked for one"},
	{edge.ErrTooFast.Error(), "the peer opens connections faster than this side lets it"},
	{edge.ErrNoPlace.Error(), "the peer has more connections that proved nothing than this side lets it"},
	{edge.ErrDisplaced.Error(), "the peer has more connections that proved nothing than this side lets it"},
	{edge.ErrFull.Error(), "this side has as many connections as it takes"},
	{edge.ErrSlow.Error(), "the peer did not end its TLS handshake in time"},
	{"bad record MAC", "the peer refuses this side, as clients in Python do where they do not know the authority of our certificate, " +
		"or what it sent was altered on the way"},
	{"didn't provide a certificate", "this side demands a certificate, and the peer shows none"},
	{"unsupported versions", "the peer's TLS is too old; it needs TLS 1.3"},
	{"certificate", "this side refuses the peer's certificate"},
	{"tls: ", "this side refuses the peer in TLS"},
}

// explainRefusal says what a server's failure of TLS means, empty where somebody just
// connected and left.
func explainRefusal(text string) string {
	for _, r := range refusals {
		if strings.Contains(text, r.text) {
			if r.text == remoteError {
				return r.means + explainAlert(text)
			}
			return r.means
		}
	}
	for _, known := range []string{"EOF", "timeout", "connection reset", "broken pipe", "closed network connection"} {
		if strings.Contains(text, known) {
			return ""
		}
	}
	return "this side refuses the peer in TLS"
}

// Bounds of what a server logs of failed TLS.
const (
	tlsLogEvery = time.Minute // for the same peer
	tlsLogPeers = 1024
)

// serverLog takes what net/http says of a server. That TLS failed goes to the log at Warn,
// in words and once in a while for each peer; that a handler panicked at Error, with its
// stack, once in a while for each panic; everything else at Debug.
type serverLog struct {
	slog.Handler // fixed at creation

	left *atomic.Int64 // counts the lines that are not written
	own  bool          // nobody else says how many: the next line does, of whatever it is

	mu   sync.Mutex
	told map[string]*toldPeer
}

// toldPeer is a peer of whose failures the log knows.
type toldPeer struct {
	at   time.Time // when one was logged
	more int       // that were not, since
}

func newServerLog(to *slog.Logger) *serverLog {
	return &serverLog{Handler: to.Handler(), told: map[string]*toldPeer{}, left: new(atomic.Int64), own: true}
}

// leftOutOfLog says what became of lines.
const leftOutOfLog = "lines were left out of the log: what goes on is logged once a minute, for each peer or plugin"

// Enabled implements slog.Handler.
func (l *serverLog) Enabled(ctx context.Context, _ slog.Level) bool {
	return l.Handler.Enabled(ctx, slog.LevelWarn)
}

// Handle implements slog.Handler.
func (l *serverLog) Handle(ctx context.Context, r slog.Record) error {
	if value, stack, ok := panicked(r.Message); ok {
		if more, due := l.dueFor("panic: "+value, r.Time); due {
			return l.crashed(ctx, r.Time, "a handler panicked", value, stack, more)
		}
	}
	text := printable(strings.TrimRight(r.Message, "\n"))
	failure, ok := strings.CutPrefix(text, "http: TLS handshake error from ")
	addr, reason, found := strings.Cut(failure, ": ")
	if means := explainRefusal(reason); ok && found && means != "" {
		if more, due := l.due(addr, r.Time); due {
			return l.warn(ctx, r.Time, addr, means, reason, more)
		}
	}
	if !l.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	out := slog.NewRecord(r.Time, r.Level, text, r.PC)
	return l.Handler.Handle(ctx, out) //nolint:wrapcheck // stands for what it wraps
}

// maxLoggedStack bounds the stack of a panic, in bytes.
const maxLoggedStack = 8 << 10

// panicked takes apart what net/http says of a handler that panicked.
func panicked(text string) (value, stack string, ok bool) {
	_, said, ok := strings.Cut(text, ": panic serving ")
	if !ok || !strings.HasPrefix(text, "http") {
		return "", "", false
	}
	said, stack, _ = strings.Cut(said, "\ngoroutine ")
	_, value, _ = strings.Cut(said, ": ")
	return printable(strings.TrimSpace(value)), stack, true
}

// crashed logs that something panicked that is not this library's.
func (l *serverLog) crashed(ctx context.Context, at time.Time, what, value, stack string, more int) error {
	out := slog.NewRecord(at, slog.LevelError, what, 0)
	stack = stack[:min(len(stack), maxLoggedStack)]
	out.AddAttrs(slog.String(keyError, value), slog.String("stack", printableStack(stack)), slog.Int(keyMore, more))
	return l.Handler.Handle(ctx, out) //nolint:wrapcheck // stands for what it wraps
}

// needsDeadlines says what to do about a listener whose connections have no deadlines.
const needsDeadlines = "limits of time go by deadlines: serve on a listener whose connections have SetDeadline, SetReadDeadline and " +
	"SetWriteDeadline (Host.Serve, PluginServerConfig.Listener)"

// needsDescriptors says what to do where there are no descriptors left.
const needsDescriptors = "this process may have no more descriptors, or the system none: raise its limit (ulimit -n, LimitNOFILE " +
	"of systemd) above Limits.MaxConnections, or look for what keeps them open"

// unserved logs that this side cannot serve a connection, or take one, once in a while for all of them. It reports
// whether the error says so.
func (l *serverLog) unserved(from string, err error) bool {
	what, why, about := "a connection was refused", needsDeadlines, edge.ErrNoDeadlines
	if errors.Is(err, edge.ErrNotAccepted) {
		what, why, about = edge.ErrNotAccepted.Error(), "the system says so", edge.ErrNotAccepted
		if edge.NoDescriptors(err) {
			why = needsDescriptors
		}
	} else if !errors.Is(err, about) {
		return false
	}
	now := time.Now()
	more, due := l.dueFor(about.Error(), now)
	if !due {
		return true
	}
	out := slog.NewRecord(now, slog.LevelError, what, 0)
	out.AddAttrs(slog.String(keyPeer, from), slog.String(keyReason, why), slog.String(keyError, printable(err.Error())))
	if most, known := edge.Descriptors(); known && why == needsDescriptors {
		out.AddAttrs(slog.Uint64(keyCount, most))
	}
	if more > 0 {
		out.AddAttrs(slog.Int(keyMore, more))
	}
	_ = l.Handler.Handle(context.Background(), out)
	return true
}

// failed logs that a peer and this side did not agree on TLS, or that this side cannot serve the connection.
func (l *serverLog) failed(addr net.Addr, err error) {
	from := "nobody yet"
	if addr != nil {
		from = addr.String()
	}
	if l.unserved(from, err) {
		return
	}
	text := fmt.Sprintf("http: TLS handshake error from %s: %v", from, err) // as net/http says it
	if p, ok := errors.AsType[*certs.PanicError](err); ok {
		value, now := printable(fmt.Sprint(p.Value)), time.Now()
		if more, due := l.dueFor("panic: "+p.Of+value, now); due {
			_ = l.crashed(context.Background(), now, p.Of+" panicked", value, string(p.Stack), more)
		}
		return
	}
	if p, ok := errors.AsType[*outdatedError](err); ok {
		host, now := withoutPort(from), time.Now()
		if more, due := l.dueFor(host+" "+p.identity, now); due {
			_ = l.warn(context.Background(), now, from, p.means(), printable(p.err.Error()), more)
		}
		return
	}
	_ = l.Handle(context.Background(), slog.NewRecord(time.Now(), slog.LevelDebug, text, 0))
}

// end says how many lines no later one can speak of.
func (l *serverLog) end() {
	if n := l.left.Swap(0); n > 0 {
		slog.New(l.Handler).Warn(leftOutOfLog, keyMore, n)
	}
}

// warn logs that TLS failed, or could not begin.
func (l *serverLog) warn(ctx context.Context, at time.Time, addr, means, reason string, more int) error {
	out := slog.NewRecord(at, slog.LevelWarn, "TLS failed", 0)
	out.AddAttrs(slog.String(keyPeer, addr), slog.String(keyReason, means), slog.String(keyError, reason))
	if more > 0 {
		out.AddAttrs(slog.Int(keyMore, more))
	}
	return l.Handler.Handle(ctx, out) //nolint:wrapcheck // stands for what it wraps
}

// unexpectedProxy says what to do about a balancer that adds a PROXY header.
const unexpectedProxy = "the connection begins with a PROXY header, which a balancer puts there and this listener does not read: " +
	"switch that off in the balancer, or serve on a listener that reads it (Host.Serve, PluginServerConfig.Listener)"

// opened takes notice of what a connection begins with, on a server with TLS or without.
func (l *serverLog) opened(secure bool) func(net.Addr, opening.Kind) {
	return func(remote net.Addr, kind opening.Kind) {
		means := ""
		switch {
		case kind == opening.ProxyText, kind == opening.ProxyBinary:
			means = unexpectedProxy
		case secure && kind != opening.TLS:
			means = "the peer does not begin with TLS: it speaks plaintext"
		case !secure && kind == opening.TLS:
			means = "the peer speaks TLS, and this side plaintext (AllowInsecure)"
		}
		if means == "" {
			return
		}
		now := time.Now()
		if more, due := l.due(remote.String(), now); due {
			_ = l.warn(context.Background(), now, remote.String(), means, "the connection begins with "+string(kind), more)
		}
	}
}

// due reports whether a peer's failure is to be logged, and how many were not since the
// last one that was. Ports do not count.
func (l *serverLog) due(addr string, now time.Time) (more int, due bool) {
	return l.dueFor(withoutPort(addr), now)
}

func withoutPort(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// dueFor does so for what has a name of its own.
func (l *serverLog) dueFor(addr string, now time.Time) (more int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.told[addr]; known != nil && now.Sub(known.at) < tlsLogEvery {
		known.more++
		l.left.Add(1)
		return 0, false
	} else if known != nil {
		more = known.more
	}
	if len(l.told) >= tlsLogPeers {
		for peer, known := range l.told {
			if now.Sub(known.at) >= tlsLogEvery {
				delete(l.told, peer)
			}
		}
		if len(l.told) >= tlsLogPeers {
			l.left.Add(1)
			return 0, false
		}
	}
	l.told[addr] = &toldPeer{at: now}
	if l.own {
		more = int(l.left.Swap(0))
	}
	return more, true
}

// addressKey returns the key of an address with or without a port: an IPv4
// address, the /64 of an IPv6 address, or one key for everything else.
func addressKey(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		withPort, err := netip.ParseAddrPort(addr)
		if err != nil {
			return localRateLimitKey
		}
		ip = withPort.Addr()
	}
	ip = ip.Unmap()
	if ip.Is4() {
		return ip.String()
	}
	site, err := ip.Prefix(ipv6SiteBits)
	if err != nil {
		return localRateLimitKey
	}
	return site.String()
}

// auditTrouble logs that an audit log cannot be written: once a minute as long as it lasts. The writer's goroutine has it.
type auditTrouble struct {
	log  *slog.Logger
	told time.Time // zero where nothing is wrong
	more int       // failures since then
}

func (t *auditTrouble) failed(err error) {
	if now := time.Now(); now.Sub(t.told) < tlsLogEvery {
		t.more++
	} else {
		t.log.Error("the audit log cannot be written, or a checkpoint not be kept", append(logged(err), keyMore, t.more)...)
		t.told, t.more = now, 0
	}
}

func (t *auditTrouble) over(missing uint64) {
	t.log.Warn("the audit log is written again; it says how many events are missing", keyCount, missing, keyMore, t.more)
	t.told, t.more = time.Time{}, 0
}
