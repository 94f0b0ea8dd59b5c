package connectplugin

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
)

// keyDir names a directory in the log.
const keyDir = "dir"

// AwaitCredentials is [LoadCredentials] for a program that may be started before
// somebody has written its credentials: as long as a file is missing it waits, says so
// once at Warn, and looks again every CheckInterval. It fails where LoadCredentials does
// for another reason, and when ctx ends, with the error of that and of the file.
func AwaitCredentials(ctx context.Context, config CredentialsConfig) (*tls.Config, error) {
	log, every := config.Logger, config.CheckInterval
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if every <= 0 {
		every = time.Second
	}
	for told := false; ; told = true {
		loaded, err := LoadCredentials(config)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return loaded, err
		}
		if !told {
			log.Warn("waiting for credentials: the host, or who operates it, has to write them", keyDir, config.Dir, keyError, err)
		}
		if !backoff.Wait(ctx, every) {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}
