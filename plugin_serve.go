package connectplugin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

func (s *pluginServer) newServer(ctx context.Context, serverTLS *tls.Config) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(s.cfg.Client.AllowInsecure)
	return &http.Server{
		Handler:           s.drain.Count(withStopping(ctx.Done(), s.handler())),
		TLSConfig:         serverTLS,
		ReadHeaderTimeout: defaultLimits.ReadHeaderTimeout,
		IdleTimeout:       defaultLimits.IdleTimeout,
		MaxHeaderBytes:    defaultLimits.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(newServerLog(s.cfg.Client.Logger), slog.LevelDebug),
		Protocols:         &protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: pluginStreams,
			SendPingTimeout:      pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: writeByteTimeout,
		},
	}
}

// pluginStreams bounds the concurrent calls on one of the host's connections.
const pluginStreams = 1000

// handler finds the service of a path.
func (s *pluginServer) handler() http.Handler {
	type entry struct {
		prefix  string
		handler http.Handler
	}
	control, bounds := &pluginControl{server: s}, boundedMessages(defaultLimits.MaxMessageBytes)
	controlPath, controlHandler := connectpluginv1connect.NewPluginControlHandler(control, bounds)
	identityPath, identityHandler := connectpluginv1connect.NewPluginIdentityHandler(control, bounds)
	table := make([]entry, 0, 2+len(s.cfg.Services))
	table = append(table, entry{controlPath, controlHandler}, entry{identityPath, identityHandler})
	for _, svc := range s.cfg.Services {
		table = append(table, entry{svc.Path, withStatedCaller(svc.Handler)})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawPath == "" && proxy.CheckPath(r.URL.Path) == nil {
			for _, e := range table {
				if strings.HasPrefix(r.URL.Path, e.prefix) {
					e.handler.ServeHTTP(w, r)
					return
				}
			}
		}
		http.NotFound(w, r)
	})
}

func (s *pluginServer) serve() error {
	var err error
	if s.server.TLSConfig == nil {
		err = s.server.Serve(s.gathered)
	} else {
		err = s.server.ServeTLS(s.gathered, "", "")
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	s.stop()
	return fmt.Errorf("serve: %w", err)
}

// shutdown drains the server and ends the identity.
func (s *pluginServer) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.grace.Load()))
	defer cancel()
	err := s.drain.Shutdown(ctx, s.server)
	if err != nil {
		err = errors.Join(fmt.Errorf("shutdown: calls in flight were cut off: %w", err), s.server.Close())
	}
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), leaveWait)
	defer cancelLast()
	if gone := s.client.Leave(last); gone != nil {
		s.cfg.Client.Logger.Debug("leave", keyError, gone) // the host is gone, or dropped the plugin already
	}
	return err
}
