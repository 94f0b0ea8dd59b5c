package headers

import (
	"maps"
	"strings"
)

// protocolFields are the fields that an RPC needs, with the directions in which
// they pass.
var protocolFields = map[string]Direction{
	"Content-Type":     headersDirection,
	"Content-Encoding": headersDirection,
	"Content-Length":   Response, // of a request the transport states it
	"Accept":           Request,
	"Accept-Encoding":  headersDirection,
	"Accept-Post":      Response,
	"Allow":            Response,
	"Te":               Request, // only as "trailers"
	"User-Agent":       Request,
	"X-User-Agent":     Request,
	"Date":             Response,
	"Retry-After":      Response,

	// What a side-effect-free GET says about keeping its answer.
	"Cache-Control": Response,
	"Etag":          Response,
	"Expires":       Response,
	"Last-Modified": Response,
	"Vary":          Response,

	"Connect-Protocol-Version": Request,
	"Connect-Timeout-Ms":       Request,
	"Connect-Content-Encoding": headersDirection,
	"Connect-Accept-Encoding":  headersDirection,

	"Grpc-Timeout":                 Request,
	"Grpc-Encoding":                headersDirection,
	"Grpc-Accept-Encoding":         headersDirection,
	"Grpc-Previous-Rpc-Attempts":   Request,
	"Grpc-Retry-Pushback-Ms":       Response | Trailer,
	"Grpc-Status":                  Response | Trailer,
	"Grpc-Message":                 Response | Trailer,
	"Grpc-Status-Details-Bin":      Response | Trailer,
	"Grpc-Trace-Bin":               everyDirection,
	"Grpc-Tags-Bin":                everyDirection,
	"Grpc-Server-Stats-Bin":        everyDirection,
	"Endpoint-Load-Metrics-Bin":    Response | Trailer,
	"Traceparent":                  everyDirection,
	"Tracestate":                   everyDirection,
	"Baggage":                      everyDirection,
	"X-B3-Traceid":                 noDirection, // only the W3C trace context passes
	"X-B3-Spanid":                  noDirection,
	"X-B3-Parentspanid":            noDirection,
	"X-B3-Sampled":                 noDirection,
	"X-B3-Flags":                   noDirection,
	"B3":                           noDirection,
	"Grpc-Internal-Encoding-Reqid": noDirection,
}

// reservedFields are the fields that never pass: of HTTP itself, of proxies and
// gateways, and of credentials.
var reservedFields = []string{
	// Hop-by-hop.
	"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Trailer", "Http2-Settings",
	"Close", "Alpn", "Capsule-Protocol",
	// Routing and origin.
	"Host", "Origin", "Referer", "Referer-Root", "Referrer-Policy", "Expect", "From", "Forwarded", "Via", "Max-Forwards", "Destination",
	"X-Real-Ip", "True-Client-Ip", "Client-Ip", "X-Cluster-Client-Ip", "Fastly-Client-Ip", "X-Remote-Ip",
	"X-Remote-Addr", "X-Remote-User", "Remote-User", "Remote-Addr", "X-Originating-Ip", "X-Host", "X-Http-Host-Override",
	"X-Rewrite-Url", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Custom-Ip-Authorization",
	"X-Sendfile", "X-Backend-Server", "X-Served-By", "X-Powered-By", "Server", "Server-Timing", "Early-Data", "Priority",
	"Client-Cert", "Client-Cert-Chain", "Cdn-Loop", "Script-Name", "Status",
	// Credentials.
	"Authorization", "Authentication-Info", "Authentication-Control", "Www-Authenticate", "Cookie", "Cookie2", "Set-Cookie", "Set-Cookie2",
	"X-Api-Key", "Api-Key", "Apikey", "X-Apikey", "X-Access-Token", "Access-Token", "X-Csrf-Token", "X-Xsrf-Token", "X-Session-Token",
	"X-Session-Id", "X-Id-Token", "X-Jwt-Assertion", "X-Token", "Token", "Dpop", "Dpop-Nonce", "Signature", "Signature-Input", "Replay-Nonce",
	"X-Vault-Token", "X-Goog-Authenticated-User-Email", "X-Goog-Authenticated-User-Id", "X-Goog-Iap-Jwt-Assertion", "X-Ms-Client-Principal",
	// What steers an HTTP client or browser.
	"Location", "Refresh", "Link", "Alt-Svc", "Alt-Used", "Strict-Transport-Security", "Public-Key-Pins", "Public-Key-Pins-Report-Only",
	"Clear-Site-Data", "Nel", "Report-To", "Reporting-Endpoints", "Expect-Ct", "Sourcemap", "X-Sourcemap", "Service-Worker-Allowed",
	"X-Frame-Options", "X-Xss-Protection", "Timing-Allow-Origin", "Permissions-Policy", "Feature-Policy", "Origin-Agent-Cluster", "P3p",
	// The rest of HTTP.
	"Age", "Accept-Charset", "Accept-Language", "Accept-Ranges", "Accept-Patch", "Accept-Ch", "Accept-Datetime", "Accept-Signature",
	"Range", "Pragma", "Warning", "Digest", "Repr-Digest", "Want-Digest", "Want-Content-Digest", "Want-Repr-Digest", "Dnt",
	"Mime-Version", "Im", "A-Im", "Delta-Base", "Prefer", "Preference-Applied", "Last-Event-Id", "Soapaction", "Slug", "Negotiate", "Tcn",
	"Alternates", "Variant-Vary", "Dav", "Depth", "If", "Lock-Token", "Overwrite", "Cache-Status", "Save-Data", "Device-Memory", "Downlink",
	"Rtt", "Dpr", "Width", "Viewport-Width", "Ect", "X-Requested-With", "X-Dns-Prefetch-Control", "X-Robots-Tag", "X-Ua-Compatible",
}

// reservedPrefixes start names that never are application metadata.
var reservedPrefixes = []string{
	"X-Plugin-", // what the host states
	"X-Forward", "X-Original-", "X-Envoy-", "X-Accel-", "X-Proxy-", "X-Proxyuser-", "X-Client-", "X-Ssl-", "X-Amzn-", "X-Amz-", "Cf-",
	"Cdn-", "Surrogate-", "Ssl-", "Proxy-", "Sec-", "Access-Control-", "Cross-Origin-", "Content-", "If-", "X-Content-",
	"X-Auth-", "Auth-", "Connect-", "Grpc-", "Trailer-", "X-Webauth-", "X-Authenticated-", "Fly-", "Remote-",
}

// reservedParts mark a name as one of a credential wherever they stand, in any
// case.
var reservedParts = []string{"authoriz", "cookie", "credential", "password", "secret", "bearer"}

// prefixesOf holds the reserved prefixes by their first letter.
var prefixesOf = buildPrefixes()

// parts are the reserved parts one after the other, a bit for each letter.
var parts = buildParts()

// longestKnown is the bytes of the longest name that is listed, or prefix that is reserved.
var longestKnown = buildLongest()

// listed gives for every known name the directions in which it passes, none for
// a reserved one.
var listed = buildListed()

// lowered holds the lower-case forms of the known names.
var lowered = buildLowered()

func buildListed() map[string]Direction {
	m := make(map[string]Direction, len(protocolFields)+len(reservedFields))
	for _, name := range reservedFields {
		m[name] = noDirection
	}
	maps.Copy(m, protocolFields)
	return m
}

func buildPrefixes() map[byte][]string {
	m := make(map[byte][]string)
	for _, prefix := range reservedPrefixes {
		m[prefix[0]] = append(m[prefix[0]], prefix)
	}
	return m
}

// letters says where in some words, one after the other, a letter stands, in either case, and where each word begins and ends.
type letters struct {
	letters     [256]uint64
	first, last uint64
}

// buildParts takes a bit for each letter of the parts.
func buildParts() (l letters) {
	n := 0
	for _, part := range reservedParts {
		l.first |= 1 << n
		for i := range len(part) {
			l.letters[part[i]] |= 1 << n
			l.letters[part[i]-'a'+'A'] |= 1 << n
			n++
		}
		l.last |= 1 << (n - 1)
	}
	return l
}

func buildLongest() (n int) {
	for name := range listed {
		n = max(n, len(name))
	}
	for _, prefix := range reservedPrefixes {
		n = max(n, len(prefix))
	}
	return n
}

func buildLowered() map[string]string {
	m := make(map[string]string, len(protocolFields))
	for name, d := range protocolFields {
		if d != noDirection {
			m[name] = strings.ToLower(name)
		}
	}
	for _, name := range []string{CallerID, CallerSelfID, CallerVersion, LastCall} {
		m[name] = strings.ToLower(name)
	}
	return m
}
