package headers_test

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/headers"
)

// rulebook is the decision in another form, for the fuzz target: lists of names in
// lower case and regular expressions, where the package has tables of canonical names.
// Whoever changes what passes changes it here, too.
var rulebook = map[headers.Direction]string{
	req | res: `
		content-type content-encoding accept-encoding connect-content-encoding connect-accept-encoding grpc-encoding grpc-accept-encoding`,
	res: `
		content-length accept-post allow date retry-after cache-control etag expires last-modified vary`,
	req: `
		accept te user-agent x-user-agent connect-protocol-version connect-timeout-ms grpc-timeout grpc-previous-rpc-attempts`,
	res | trl: `
		grpc-retry-pushback-ms grpc-status grpc-message grpc-status-details-bin endpoint-load-metrics-bin`,
	all: `
		grpc-trace-bin grpc-tags-bin grpc-server-stats-bin traceparent tracestate baggage`,
	none: `
		a-im accept-ch accept-charset accept-datetime accept-language accept-patch accept-ranges accept-signature access-token age alpn
		alt-svc alt-used alternates api-key apikey authentication-control authentication-info authorization b3 cache-status
		capsule-protocol cdn-loop clear-site-data client-cert client-cert-chain client-ip close connection cookie cookie2 dav delta-base
		depth destination device-memory digest dnt downlink dpop dpop-nonce dpr early-data ect expect expect-ct fastly-client-ip
		feature-policy forwarded from grpc-internal-encoding-reqid host http2-settings if im keep-alive last-event-id link location
		lock-token max-forwards mime-version negotiate nel origin origin-agent-cluster overwrite p3p permissions-policy pragma prefer
		preference-applied priority proxy-connection public-key-pins public-key-pins-report-only range referer referer-root
		referrer-policy refresh remote-addr remote-user replay-nonce report-to reporting-endpoints repr-digest rtt save-data script-name
		server server-timing service-worker-allowed set-cookie set-cookie2 signature signature-input slug soapaction sourcemap status
		strict-transport-security tcn timing-allow-origin token trailer transfer-encoding true-client-ip upgrade variant-vary via
		viewport-width want-content-digest want-digest want-repr-digest warning width www-authenticate x-access-token x-api-key x-apikey
		x-b3-flags x-b3-parentspanid x-b3-sampled x-b3-spanid x-b3-traceid x-backend-server x-cluster-client-ip x-csrf-token
		x-custom-ip-authorization x-dns-prefetch-control x-frame-options x-goog-authenticated-user-email x-goog-authenticated-user-id
		x-goog-iap-jwt-assertion x-host x-http-host-override x-http-method x-http-method-override x-id-token x-jwt-assertion
		x-method-override x-ms-client-principal x-originating-ip x-powered-by x-real-ip x-remote-addr x-remote-ip x-remote-user
		x-requested-with x-rewrite-url x-robots-tag x-sendfile x-served-by x-session-id x-session-token x-sourcemap x-token
		x-ua-compatible x-vault-token x-xsrf-token x-xss-protection`,
}

var (
	canonical  = regexp.MustCompile(`^([A-Z0-9._][a-z0-9._]*)?(-([A-Z0-9._][a-z0-9._]*)?)*$`)
	reserved   = regexp.MustCompile(`^(x-plugin-|x-forward|x-original-|x-envoy-|x-accel-|x-proxy-|x-proxyuser-|x-client-|x-ssl-|x-amzn-|x-amz-|cf-|cdn-|surrogate-|ssl-|proxy-|sec-|access-control-|cross-origin-|content-|if-|x-content-|x-auth-|auth-|connect-|grpc-|trailer-|x-webauth-|x-authenticated-|fly-|remote-)`)
	credential = regexp.MustCompile(`authoriz|cookie|credential|password|secret|bearer`)
	ascii      = regexp.MustCompile(`^[\x00-\x7f]*$`)
	visible    = regexp.MustCompile(`^[^\x00-\x08\x0a-\x1f\x7f]*$`)
)

// known gives the directions of the names in the rulebook.
var known = func() map[string]headers.Direction {
	m := map[string]headers.Direction{}
	for d, names := range rulebook {
		for name := range strings.FieldsSeq(names) {
			m[name] = d
		}
	}
	return m
}()

// wantDirections says in which directions a name passes.
func wantDirections(name string) headers.Direction {
	if name == "" || !canonical.MatchString(name) {
		return none
	}
	lower := strings.ToLower(name)
	if d, ok := known[lower]; ok {
		return d
	}
	if inner, ok := strings.CutPrefix(lower, "trailer-"); ok {
		if isFree(inner) {
			return res
		}
		return none
	}
	if isFree(lower) {
		return all
	}
	return none
}

// isFree reports whether a name in lower case, and its spelling with '-' for '_', is
// nothing but metadata of an application.
func isFree(lower string) bool {
	for _, spelling := range []string{lower, strings.ReplaceAll(lower, "_", "-")} {
		if _, ok := known[spelling]; ok || spelling == "" || reserved.MatchString(spelling) || credential.MatchString(spelling) {
			return false
		}
	}
	return true
}

// hasToken reports whether one of the lists has the token, in any case of ASCII.
func hasToken(lists []string, token string) bool {
	for item := range strings.SplitSeq(strings.Join(lists, ","), ",") {
		item = strings.Trim(item, " \t")
		if ascii.MatchString(item) && strings.EqualFold(item, token) {
			return true
		}
	}
	return false
}

// wantValues says which values of a field pass in a direction.
func wantValues(d headers.Direction, name string, values, connection []string) []string {
	if wantDirections(name)&d == 0 || hasToken(connection, name) {
		return nil
	}
	if name == "Te" {
		if hasToken(values, "trailers") {
			return []string{"trailers"}
		}
		return nil
	}
	var pass []string
	for _, v := range values {
		if visible.MatchString(v) {
			pass = append(pass, v)
		}
	}
	return pass
}

// FuzzPasses compares what passes, in each direction, with what the rulebook says:
// that nothing passes which must not, and that what an RPC needs does.
func FuzzPasses(f *testing.F) {
	for name := range verdicts {
		f.Add(name, "value", "")
	}
	for name := range known {
		f.Add(http.CanonicalHeaderKey(name), "value", "")
		f.Add(http.CanonicalHeaderKey(strings.ReplaceAll(name, "-", "_")), "value", "")
		f.Add(http.CanonicalHeaderKey("trailer-"+name), "value", "")
	}
	f.Add("X-A", "a\r\nb: c", "close, X-B")
	f.Add("X-A", "a", "close,\tx-a")
	f.Add("Te", "gzip, Trailers", "te")
	f.Fuzz(func(t *testing.T, name, value, connection string) {
		src := http.Header{name: {value, "another"}}
		if name != "Connection" && connection != "" {
			src["Connection"] = []string{"keep-alive", connection}
		}
		for _, d := range []headers.Direction{req, res, trl} {
			got, want := collect(d, src), wantValues(d, name, src[name], src["Connection"])
			if !slices.Equal(got[name], want) || len(got) > 1 || len(got) == 1 && want == nil {
				t.Errorf("%q: %q with Connection %q passes %03b as %q, want %q", name, value, connection, d, got, want)
			}
			if passes := new(headers.Rules).Passes(d, name); passes != (wantDirections(name)&d != 0) {
				t.Errorf("%q passes %03b: %v", name, d, passes)
			}
		}
	})
}
