package connectgo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

const (
	headerTimeout = 10 * time.Second
	grace         = 5 * time.Second
)

// Serve serves until ctx ends, and then until the calls in flight have.
func Serve(ctx context.Context, j echo.Job, l net.Listener) error {
	cfg, err := j.ServerTLS()
	if err != nil {
		return fmt.Errorf("connect-go: %w", err)
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	server := &http.Server{
		Handler: Handler(), TLSConfig: cfg, Protocols: &protocols, ReadHeaderTimeout: headerTimeout,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(l, "", "") }()
	select {
	case err := <-served:
		return fmt.Errorf("connect-go: %w", err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err = server.Shutdown(ending)
	if cause := <-served; !errors.Is(cause, http.ErrServerClosed) {
		err = errors.Join(err, cause)
	}
	return err
}
