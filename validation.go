package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/Masterminds/semver/v3"
	"google.golang.org/protobuf/encoding/protowire"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/extent"
	"github.com/masegraye/connect-plugin-go/internal/prescan"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
	"github.com/masegraye/connect-plugin-go/internal/swell"
)

// Bounds of what a plugin says about itself. Lengths are in bytes.
const (
	// MaxSelfIDLen is the longest self id.
	MaxSelfIDLen = 128
	// MaxServiceTypeLen is the longest service or capability type.
	MaxServiceTypeLen = 128
	// MaxVersionLen is the longest version.
	MaxVersionLen = 64
	// MaxMetadataEntries is the largest number of entries in a metadata map.
	MaxMetadataEntries = 100
	// MaxMetadataKeyLen is the longest metadata key.
	MaxMetadataKeyLen = 256
	// MaxMetadataValueLen is the longest metadata value.
	MaxMetadataValueLen = 4096

	// maxMetadataBytes bounds the keys and values of one map together.
	maxMetadataBytes = 64 << 10
	// maxEndpointPathLen bounds an endpoint path.
	maxEndpointPathLen = 1024
	// maxQuotedText bounds what an error repeats of a refused text.
	maxQuotedText = 64
)

// pathPunctuation is what RFC 3986 allows in a segment beside letters and
// digits, without "%" (escapes) and ";" (parameters, which servers read in
// different ways).
const pathPunctuation = "-._~!$&'()*+,=:@"

// ValidateSelfID checks the name that a plugin gives itself: at most
// [MaxSelfIDLen] ASCII letters, digits, '.', '_' and '-', the first of them a
// letter or digit. The error names the rule; it repeats at most a short, quoted
// part of selfID.
func ValidateSelfID(selfID string) error {
	return validateName("self id", selfID, MaxSelfIDLen)
}

// ValidateServiceType checks the type of a service or capability by the rules
// of [ValidateSelfID] with [MaxServiceTypeLen]: a type is one segment of a
// route, so it has no slash and cannot be a dot segment.
func ValidateServiceType(serviceType string) error {
	return validateName("service type", serviceType, MaxServiceTypeLen)
}

// ValidateVersion checks that version is a semantic version
// (https://semver.org) of at most [MaxVersionLen] bytes. A leading "v" and
// missing minor or patch numbers are accepted, a constraint is not.
func ValidateVersion(version string) error {
	if err := validateLength("version", version, MaxVersionLen); err != nil {
		return err
	}
	if _, err := semver.NewVersion(version); err != nil {
		return fmt.Errorf("version %s is not a semantic version such as 1.2.3", quoted(version))
	}
	return nil
}

// ValidateEndpointPath checks the path under which a plugin serves something.
// It is absolute and clean, so that every proxy and every handler reads it
// alike: no empty segment except after a final slash, no dot segment, no escape,
// query, fragment, parameter, backslash, space, control or non-ASCII character.
func ValidateEndpointPath(path string) error {
	const field = "endpoint path"
	if err := validateLength(field, path, maxEndpointPathLen); err != nil {
		return err
	}
	if path[0] != '/' {
		return fmt.Errorf("%s %s must start with a slash", field, quoted(path))
	}
	for i := range len(path) {
		if c := path[i]; c != '/' && !isAlphanumeric(c) && strings.IndexByte(pathPunctuation, c) < 0 {
			return fmt.Errorf("%s %s must not contain %+q", field, quoted(path), path[i:i+1])
		}
	}
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		switch {
		case segment == "." || segment == "..":
			return fmt.Errorf("%s %s must not contain dot segments", field, quoted(path))
		case segment == "" && i < len(segments)-1:
			return fmt.Errorf("%s %s must not contain empty segments", field, quoted(path))
		}
	}
	return nil
}

// ValidateMetadata checks a metadata map: at most [MaxMetadataEntries] entries
// and 64 KiB in total; keys of 1 to [MaxMetadataKeyLen] printable ASCII
// characters without spaces, none of them reserved; values of at most
// [MaxMetadataValueLen] bytes of UTF-8 without control characters, line
// separators and text direction marks. A nil map is valid.
//
// Reserved, in any case, are keys that could be taken for a credential or an
// identity: those that begin with "connectplugin." or "x-plugin-", and
// "authorization", "cookie", "runtime_id" and "runtime_token".
func ValidateMetadata(metadata map[string]string) error {
	if n := len(metadata); n > MaxMetadataEntries {
		return fmt.Errorf("metadata has %d entries, at most %d are allowed", n, MaxMetadataEntries)
	}
	total := 0
	for key, value := range metadata {
		if err := validateMetadataKey(key); err != nil {
			return err
		}
		if err := validateMetadataValue(value); err != nil {
			return fmt.Errorf("metadata value of %s %w", quoted(key), err)
		}
		total += len(key) + len(value)
	}
	if total > maxMetadataBytes {
		return fmt.Errorf("metadata has %d bytes, at most %d are allowed", total, maxMetadataBytes)
	}
	return nil
}

// servicePath returns the path that a declaration means: generated code of the first
// version writes the bare name of the service, "kv.v1.KVService", for
// "/kv.v1.KVService/".
func servicePath(declared string) string {
	if declared == "" || strings.Contains(declared, "/") {
		return declared
	}
	return "/" + declared + "/"
}

// isOwnPath reports whether a path is one of the services of this library, to which a host passes nobody on.
func isOwnPath(path string) bool { return strings.HasPrefix(path, ownPackage) }

func validateMetadataKey(key string) error {
	const field = "metadata key"
	if err := validateLength(field, key, MaxMetadataKeyLen); err != nil {
		return err
	}
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c >= unicode.MaxASCII {
			return fmt.Errorf("%s %s must be printable ASCII without spaces", field, quoted(key))
		}
	}
	if isReservedKey(strings.ToLower(key)) {
		return fmt.Errorf("%s %s is reserved", field, quoted(key))
	}
	return nil
}

func isReservedKey(lower string) bool {
	switch lower {
	case "authorization", "cookie", "runtime_id", "runtime_token":
		return true
	default:
		return strings.HasPrefix(lower, "connectplugin.") || strings.HasPrefix(lower, "x-plugin-")
	}
}

var (
	errValueEncoding   = errors.New("is not UTF-8")
	errValueCharacters = errors.New("contains control characters, line separators or text direction marks")
)

func validateMetadataValue(value string) error {
	if len(value) > MaxMetadataValueLen {
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(value), MaxMetadataValueLen)
	}
	if !utf8.ValidString(value) {
		return errValueEncoding
	}
	if strings.ContainsFunc(value, forges) {
		return errValueCharacters
	}
	return nil
}

func validateName(field, name string, limit int) error {
	if err := validateLength(field, name, limit); err != nil {
		return err
	}
	if !isAlphanumeric(name[0]) {
		return fmt.Errorf("%s %s must start with a letter or digit", field, quoted(name))
	}
	for i := range len(name) {
		if c := name[i]; !isAlphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf("%s %s may only contain letters, digits, '.', '_' and '-'", field, quoted(name))
		}
	}
	return nil
}

func validateLength(field, text string, limit int) error {
	switch {
	case text == "":
		return fmt.Errorf("%s must not be empty", field)
	case len(text) > limit:
		return fmt.Errorf("%s has %d bytes, at most %d are allowed", field, len(text), limit)
	default:
		return nil
	}
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// quoted returns a bounded, escaped form of a text that was refused.
func quoted(s string) string {
	if len(s) > maxQuotedText {
		return fmt.Sprintf("%+q…", s[:maxQuotedText])
	}
	return fmt.Sprintf("%+q", s)
}

// defaultPorts are the ports of the schemes of base URLs.
var defaultPorts = map[string]string{"https": "443", "http": "80"}

// parseHostURL accepts the base URL of a host: scheme and authority, nothing else.
func parseHostURL(raw string, allowInsecure bool) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || !strings.Contains(raw, "://") { // "localhost:8443" has the scheme "localhost", which nobody meant
		return nil, errors.New("is no URL; write for example \"https://127.0.0.1:8443\", or \"https://[fe80::1%25eth0]:8443\" with a zone")
	}
	switch {
	case u.Scheme == "http" && !allowInsecure:
		return nil, errors.New("is plaintext; write https://, or set AllowInsecure for development")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("has scheme %q; write https://host:port", u.Scheme)
	case u.Host == "" || u.Hostname() == "":
		return nil, errors.New("names no host; write https://host:port")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return nil, errors.New("carries credentials, a query or a fragment; write https://host:port and nothing else")
	case strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("has path %q; write https://host:port and nothing else", u.Path)
	case !isPort(u.Port()):
		return nil, fmt.Errorf("has port %q; write one from 1 to 65535", u.Port())
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// addrOnly strips the port and the zone of a remote address.
func addrOnly(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	var room [64]byte // on the stack
	text := ap.Addr().Unmap().WithZone("").AppendTo(room[:0])
	if strings.HasPrefix(remote, string(text)) { // as usual
		return remote[:len(text)]
	}
	return string(text)
}

// withoutZone strips the zone of an IPv6 address: it means something on this machine alone, and no
// certificate has one (RFC 6874, section 4). crypto/x509 of Go 1.26 takes an address with a zone for a name.
func withoutZone(host string) string {
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() == "" {
		return host
	}
	return ip.WithZone("").String()
}

// parseClientURL accepts the base URL of a host as its clients see it: below a path, where
// a proxy in front of it serves it there. Prefix is that path without a final slash.
func parseClientURL(raw string, allowInsecure bool) (host *url.URL, prefix string, err error) {
	if u, err := url.Parse(raw); err == nil && u.Host != "" && u.RawPath == "" {
		if path := strings.TrimRight(u.Path, "/"); path != "" && ValidateEndpointPath(path) == nil {
			u.Path, prefix = "", path
			raw = u.String()
		}
	}
	host, err = parseHostURL(raw, allowInsecure)
	return host, prefix, err
}

// Errors of the version negotiation, to be told apart with [errors.Is].
var (
	errVersionRange    = errors.New("application versions are no range")
	errNoCommonVersion = errors.New("no common application version")
)

// versionRange is a range of application versions, both ends included.
type versionRange struct{ min, max int32 }

// versionsBetween returns the range between two configured versions.
func versionsBetween(lowest, highest int) versionRange {
	return versionRange{min: wireVersion(lowest), max: wireVersion(highest)}
}

// requestedVersions returns the versions that a request offers. An end that is
// zero is the exact version of app_protocol_version, the only one that a peer of
// the first wire version names.
func requestedVersions(req *connectpluginv1.HandshakeRequest) versionRange {
	r := versionRange{min: req.GetMinProtocolVersion(), max: req.GetMaxProtocolVersion()}
	if r.min == 0 {
		r.min = req.GetAppProtocolVersion()
	}
	if r.max == 0 {
		r.max = req.GetAppProtocolVersion()
	}
	return r
}

// highestCommon returns the highest version that is in both ranges. It wraps
// [errVersionRange] if one is no range of versions from zero, and
// [errNoCommonVersion] if they share none.
func (r versionRange) highestCommon(peer versionRange) (int32, error) {
	for _, v := range []versionRange{r, peer} {
		if v.min < 0 || v.min > v.max {
			return 0, fmt.Errorf("%w: %d to %d", errVersionRange, v.min, v.max)
		}
	}
	lowest, highest := max(r.min, peer.min), min(r.max, peer.max)
	if lowest > highest {
		return 0, fmt.Errorf("%w: %d to %d are offered, %d to %d are spoken here", errNoCommonVersion, peer.min, peer.max, r.min, r.max)
	}
	return highest, nil
}

// negotiateVersion returns the application version for the answer to req: the
// highest that both sides speak. The error is fit for the peer.
func negotiateVersion(req *connectpluginv1.HandshakeRequest, own versionRange) (int32, error) {
	return own.highestCommon(requestedVersions(req))
}

// deprecationWarning returns what the host tells a peer with which it agreed on a
// deprecated version, nothing where the version is not.
func deprecationWarning(version, below int32) string {
	if version < below {
		return fmt.Sprintf("application version %d is deprecated on this host; speak %d or later", version, below)
	}
	return ""
}

// wireVersion returns a configured version as it goes over the wire. One that is too large was refused, but
// for that of a handshake server of the user's own, where nothing validates.
func wireVersion(v int) int32 {
	return int32(max(math.MinInt32, min(v, math.MaxInt32)))
}

// handshakeFields bound the fields of a handshake before it is decoded; what is in them
// is looked at afterwards.
//
//nolint:mnd // the numbers of the fields
var handshakeFields = prescan.Fields{
	Most: 4096,
	Known: map[protowire.Number]prescan.Field{
		3:  {Name: "magic_cookie_key", Bytes: maxCookieLen},
		4:  {Name: "magic_cookie_value", Bytes: maxCookieLen},
		5:  {Name: "requested_plugins", Count: maxRequestedPlugins, Bytes: maxPluginNameLen},
		6:  {Name: "client_metadata", Count: MaxMetadataEntries, Bytes: MaxMetadataKeyLen + MaxMetadataValueLen + wireOverhead},
		10: {Name: "self_id", Bytes: MaxSelfIDLen},
		11: {Name: "self_version", Bytes: MaxVersionLen},
		12: {Name: "client_nonce", Bytes: maxNonceLen},
		15: {Name: "provides", Count: maxDeclarations, Bytes: MaxServiceTypeLen + MaxVersionLen + maxEndpointPathLen + wireOverhead},
		16: {Name: "requires", Count: maxDeclarations, Bytes: MaxServiceTypeLen + semrange.MaxLength + wireOverhead},
		17: {Name: "issued_at", Bytes: wireOverhead},
		18: {Name: "client_proof", Bytes: maxProofLen},
	},
}

// wireOverhead is more than what the fields of a nested message cost beside their texts.
const wireOverhead = 64

// Bounds of a handshake request, beyond those of its texts.
const (
	maxRequestedPlugins = 256
	maxDeclarations     = 256
	maxPluginNameLen    = 256
	maxCookieLen        = 256
	maxNonceLen         = 64
	maxProofLen         = 64
)

// validateHandshake bounds every field before anything is decided, but for what is in the lists, see
// validateHandshakeLists. The text names the field: it is the sender's own message.
func validateHandshake(m *connectpluginv1.HandshakeRequest) error {
	if m.GetSelfId() != "" {
		if err := ValidateSelfID(m.GetSelfId()); err != nil {
			return fmt.Errorf("self_id: %w", err)
		}
	}
	if m.GetSelfVersion() != "" {
		if err := ValidateVersion(m.GetSelfVersion()); err != nil {
			return fmt.Errorf("self_version: %w", err)
		}
	}
	if err := ValidateMetadata(m.GetClientMetadata()); err != nil {
		return fmt.Errorf("client_metadata: %w", err)
	}
	for _, f := range []struct {
		name     string
		len, max int
	}{
		{"magic_cookie_key", len(m.GetMagicCookieKey()), maxCookieLen},
		{"magic_cookie_value", len(m.GetMagicCookieValue()), maxCookieLen},
		{"client_nonce", len(m.GetClientNonce()), maxNonceLen},
		{"client_proof", len(m.GetClientProof()), maxProofLen},
	} {
		if f.len > f.max {
			return fmt.Errorf("%s: has more than %d bytes", f.name, f.max)
		}
	}
	if n := len(m.GetClientNonce()); n != 0 && n != nonceBytes {
		return fmt.Errorf("client_nonce: has %d bytes, must have %d", n, nonceBytes)
	}
	return nil
}

// validateHandshakeLists looks at what a request lists. That takes far longer than the rest of a handshake, so whoever
// sent it has proven who it is, or paid, before.
func validateHandshakeLists(m *connectpluginv1.HandshakeRequest) error {
	if len(m.GetRequestedPlugins()) > maxRequestedPlugins {
		return fmt.Errorf("requested_plugins: has more than %d entries", maxRequestedPlugins)
	}
	for _, name := range m.GetRequestedPlugins() {
		if len(name) > maxPluginNameLen {
			return fmt.Errorf("requested_plugins: a name has more than %d bytes", maxPluginNameLen)
		}
	}
	if len(m.GetProvides()) > maxDeclarations || len(m.GetRequires()) > maxDeclarations {
		return fmt.Errorf("provides, requires: have more than %d entries", maxDeclarations)
	}
	seen, constraints := map[string]bool{}, semrange.Together{}
	for i, d := range m.GetProvides() {
		if err := declarationOf(d).validate(); err != nil {
			return fmt.Errorf("provides[%d]: %w", i, err)
		}
		if seen[d.GetType()] {
			return fmt.Errorf("provides[%d]: type %q is declared twice", i, d.GetType())
		}
		seen[d.GetType()] = true
	}
	clear(seen)
	for i, d := range m.GetRequires() {
		if err := ValidateServiceType(d.GetType()); err != nil {
			return fmt.Errorf("requires[%d]: %w", i, err)
		}
		if _, err := constraints.Parse(d.GetMinVersion()); err != nil {
			return fmt.Errorf("requires[%d]: min_version: %w", i, err)
		}
		if seen[d.GetType()] {
			return fmt.Errorf("requires[%d]: type %q is declared twice", i, d.GetType())
		}
		seen[d.GetType()] = true
	}
	return nil
}

// swelling is how far a message of a call to the host's process may swell.
func (l *Limits) swelling() swell.Bounds {
	return swell.Bounds{Bytes: l.MaxDecompressedBytes, Ratio: l.MaxDecompressionRatio, Free: freeSwelling}
}

// messages bounds those to the host's own services.
func (l *Limits) messages() connect.HandlerOption {
	bounds := l.swelling()
	bounds.Bytes = int64(l.MaxMessageBytes)
	return swellingMessages(l.MaxMessageBytes, bounds)
}

// handshakes bounds the messages of handshakes.
func (l *Limits) handshakes() connect.HandlerOption {
	bounds := l.swelling()
	bounds.Bytes = int64(l.MaxHandshakeBytes)
	return swellingMessages(l.MaxHandshakeBytes, bounds)
}

// fields bounds what is in the messages to the host's own services, where the operator wants less
// than both sides agreed on. Met is told of each message that has more.
func (l *Limits) fields(met func(ctx context.Context, procedure string)) connect.HandlerOption {
	b := extent.Bounds{Entries: l.MaxFieldEntries, Bytes: l.MaxFieldBytes}
	if b.Entries >= defaultLimits.MaxFieldEntries && b.Bytes >= defaultLimits.MaxFieldBytes {
		return connect.WithInterceptors() // each field has its own bound
	}
	return connect.WithInterceptors(fieldBounds{b, met})
}
