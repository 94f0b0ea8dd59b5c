package connectpluginv2

import (
	"errors"
	"io"
	"net/http"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
)

// Conn is what a transport goes over: a [connectplugin.ServiceConn], a
// [connectplugin.CapabilityConn].
type Conn interface {
	BaseURL() string
	HTTPClient() connectv1.HTTPClient
}

// NewTransport returns a transport over a connection of the library, for
// [connect.NewClient]. Options are those of [connecthttp.NewTransport]: without one it speaks
// Connect; take [connecthttp.WithGRPC] for a provider that is not known, which understands
// that at least. It reads messages of up to 4 MiB unless [connecthttp.WithReadMaxBytes] says
// otherwise. Calls fail with the codes and texts that a caller of the first version sees;
// errors of the connection are among the causes ([errors.Is]). It lives as long as conn.
func NewTransport(conn Conn, options ...connecthttp.Option) connect.Transport {
	return connecthttp.NewTransport(translating{conn.HTTPClient()}, conn.BaseURL(), options...)
}

// translating makes errors of Connect's first version those of the second.
type translating struct{ client connectv1.HTTPClient }

// Do sends a request.
func (t translating) Do(r *http.Request) (*http.Response, error) {
	resp, err := t.client.Do(r)
	if err != nil {
		return nil, FromV1(err)
	}
	resp.Body = translatingBody{resp.Body}
	return resp, nil
}

type translatingBody struct{ io.ReadCloser }

// Read implements io.Reader.
func (b translatingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = FromV1(err)
	}
	return n, err
}
