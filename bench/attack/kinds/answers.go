//nolint:wrapcheck // errors of the framer end an attack, and nobody looks at them
package kinds

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/bench/stage"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

const (
	ownPath     = "/services/" + flooded + "/-" + stage.Say
	mostNamed   = 6_500 // fields of an answer, in the 256 KiB of them that a host takes
	takenFields = 900   // about as many as an answer may have
	fieldText   = 240   // bytes of one: as many of them are as large as a head may be
	midFields   = 100   // and as much of a head as counts for nothing
	midText     = 30
)

// ownProviders are attacks of a plugin that provides the service which it calls: the host stands between, and carries what
// it answers itself.
func ownProviders() []Kind {
	list := []Kind{
		{Name: "own provider: answers of many fields", run: own(wide(mostNamed, 0, true), asFast)},
		{Name: "own provider: answers of 900 fields", run: own(wide(takenFields, 0, true), asFast)},
		{Name: "own provider: trailers of many fields", run: own(wideTrailer(takenFields), asFast)},
		{Name: "own provider: answers of many fields that stay open", run: own(wide(takenFields, 0, false), keepOpen(ownPath, true))},
		{
			Name: "own provider: large answers that stay open, nothing is read",
			run:  own(wide(takenFields, fieldText, false), keepOpen(ownPath, false)),
		},
		{Name: "own provider: answers of 100 fields that stay open", run: own(wide(midFields, midText, false), keepOpen(ownPath, true))},
	}
	for i := range list {
		list[i].Who = Plugin
	}
	return list
}

// own registers a provider of the bad plugin's that behaves in a way, and calls it.
func own(b behaviour, call func(context.Context, *attack) error) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", from+":0")
		if err != nil {
			return err
		}
		var working sync.WaitGroup
		defer working.Wait()
		defer func() { _ = l.Close() }()
		working.Go(func() { a.accept(ctx, l, &working, b) })
		_, err = a.client.RegistryClient().RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
			ServiceType: flooded, Version: firstVersion, EndpointPath: stage.Path,
			Metadata: map[string]string{baseURL: "https://" + l.Addr().String()},
		}))
		if err == nil {
			err = a.client.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
		}
		if err != nil {
			return fmt.Errorf("register: %w", err)
		}
		return call(ctx, a)
	}
}

// asFast calls on several connections, and waits for answers whenever so many were asked for.
func asFast(ctx context.Context, a *attack) error {
	return severally(flood(paced(func(c *conn, _ uint32) error {
		_, err := c.open(c.cached(ownPath), true)
		return err
	})))(ctx, a)
}

// named are so many fields with names of their own, which take no place in a table.
func named(n, text int) []byte {
	var b bytes.Buffer
	value := strings.Repeat("v", text)
	for i := range n {
		const short = 127 // lengths that take a byte; one more byte has the rest of others
		name := "x" + strconv.FormatInt(int64(i), 36)
		b.Write([]byte{0, byte(len(name))}) //nolint:gosec // a few
		b.WriteString(name)
		if text < short {
			b.WriteByte(byte(text)) //nolint:gosec // as above
		} else {
			b.Write([]byte{short, byte(text - short)}) //nolint:gosec // of at most 254
		}
		b.WriteString(value)
	}
	return b.Bytes()
}

// wide answers with so many fields of so many bytes each.
func wide(n, text int, end bool) behaviour {
	fields := named(n, text)
	return func(s *served, id uint32) error {
		s.block.Reset()
		for _, f := range [...][2]string{{":status", strconv.Itoa(http.StatusOK)}, {fieldType, "application/proto"}} {
			_ = s.fields.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
		}
		return sendHead(s.Framer, id, append(bytes.Clone(s.block.Bytes()), fields...), end)
	}
}

// wideTrailer answers with so many fields in a trailer.
func wideTrailer(n int) behaviour {
	fields := named(n, 0)
	return func(s *served, id uint32) error {
		if err := s.head(id, true, http.StatusOK, "content-type", "application/grpc"); err != nil {
			return err
		}
		return sendHead(s.Framer, id, fields, true)
	}
}
