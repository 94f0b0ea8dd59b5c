package h2serve

import (
	"errors"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

// Errors of a request that is malformed.
var (
	errHost       = errors.New("the request says twice whom it is for, or is for nobody")
	errConnection = errors.New("the request has fields of a connection")
)

// newStream makes the stream of a request. An error says that it is malformed.
func (c *conn) newStream(f *http2.MetaHeadersFrame) (*stream, error) {
	st := &stream{
		c: c, id: f.StreamID, recvWindow: int64(c.s.cfg.StreamWindow), declared: -1, remote: f.StreamEnded(),
	}
	st.can.L, st.large = &c.mu, f.Truncated
	if st.large && c.s.cfg.TooLarge == nil {
		return nil, nil //nolint:nilnil // it is answered without a handler
	}
	st.ctx.InitKept(c.life)
	var err error
	st.req, err = c.newRequest(st, f)
	return st, err
}

// blank is what requests are made of: their context can be set in a copy alone.
var blank http.Request

func (c *conn) newRequest(st *stream, f *http2.MetaHeadersFrame) (*http.Request, error) {
	malformed := http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	method, path, scheme, authority := f.PseudoValue("method"), f.PseudoValue("path"), f.PseudoValue("scheme"), f.PseudoValue("authority")
	if method == "" || method == http.MethodConnect || path == "" || scheme != "https" && scheme != "http" {
		return nil, malformed
	}
	path, authority = c.texts.shared(path), c.texts.shared(authority)
	header, err := c.header(f)
	if err != nil {
		return nil, malformed
	}
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, malformed
	}
	if authority, err = hostOf(authority, header); err != nil {
		return nil, malformed
	}
	r := blank.WithContext(&st.ctx)
	r.Method, r.URL, r.RequestURI, r.Host, r.Header = method, u, path, authority, header
	r.Proto, r.ProtoMajor, r.RemoteAddr, r.TLS, r.Body = "HTTP/2.0", 2, c.remote, c.state, http.NoBody
	expects := httpguts.HeaderValuesContainsToken(header["Expect"], "100-continue")
	if expects {
		delete(header, "Expect")
	}
	st.trailer = declaredTrailer(header)
	if r.Trailer = st.trailer; st.remote {
		return r, nil
	}
	if r.ContentLength, err = statedLength(header); err != nil {
		return nil, malformed
	}
	st.declared, st.expects, r.Body = r.ContentLength, expects, st
	return r, nil
}

// hostOf returns whom a request is for, and takes the field that may say it, too, out of the header
// (RFC 9113, section 8.3.1).
func hostOf(authority string, header http.Header) (string, error) {
	stated := header["Host"]
	delete(header, "Host")
	switch {
	case len(stated) > 1, len(stated) == 1 && authority != "" && stated[0] != authority:
		return "", errHost
	case len(stated) == 1:
		authority = stated[0]
	}
	if strings.Contains(authority, "@") || !httpguts.ValidHostHeader(authority) {
		return "", errHost
	}
	return authority, nil
}

// header returns the fields of a request.
func (c *conn) header(f *http2.MetaHeadersFrame) (http.Header, error) {
	fields := f.RegularFields()
	header := make(http.Header, len(fields))
	values := make([]string, len(fields)) // all of them, of which each has one
	for i, field := range fields {
		if ofConnection(field.Name) || field.Name == "te" && field.Value != "trailers" && field.Value != "" {
			return nil, errConnection
		}
		name := c.canonical(field.Name)
		value := c.texts.shared(field.Value)
		if more, ok := header[name]; ok {
			header[name] = append(more, value)
			continue
		}
		values[i] = value
		header[name] = values[i : i+1 : i+1]
	}
	if len(header["Te"]) > 1 {
		return nil, errConnection
	}
	if cookies := header["Cookie"]; len(cookies) > 1 {
		header["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	return header, nil
}

// statedLength returns the length of a request's body, -1 if it is not stated.
func statedLength(header http.Header) (int64, error) {
	stated := header["Content-Length"]
	if len(stated) == 0 {
		return -1, nil
	}
	if slices.ContainsFunc(stated, func(s string) bool { return s != stated[0] }) {
		return 0, errLength
	}
	n, err := strconv.ParseUint(stated[0], 10, 63)
	return int64(n), err
}

// declaredTrailer returns a header with the names of the fields that a request has in its trailer,
// nil for none.
func declaredTrailer(header http.Header) http.Header {
	var trailer http.Header
	for _, list := range header["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			if name == "" || !httpguts.ValidTrailerHeader(name) {
				continue
			}
			if trailer == nil {
				trailer = http.Header{}
			}
			trailer[name] = nil
		}
	}
	delete(header, "Trailer")
	return trailer
}
