package certs_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// journal is a log that can be read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()

	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()

	return j.b.String()
}

// From when on a certificate counts as about to end, by how long it lives and by whether
// anything renews it.
func TestVigilWarnsInTime(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		life, warn time.Duration
		fixed      bool
	}{
		"renewed, a minute":     {time.Minute + certs.ClockSkew, 15 * time.Second, false},
		"renewed, an hour":      {time.Hour + certs.ClockSkew, 15 * time.Minute, false},
		"renewed, a day":        {24*time.Hour + certs.ClockSkew, 6 * time.Hour, false},
		"renewed, ten years":    {3650 * 24 * time.Hour, 14 * 24 * time.Hour, false},
		"fixed, two days":       {48 * time.Hour, 24 * time.Hour, true},
		"fixed, forty days":     {40*24*time.Hour + certs.ClockSkew, 10 * 24 * time.Hour, true},
		"fixed, less than ever": {time.Minute, time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log journal

				leaf := &x509.Certificate{Raw: []byte(name), NotBefore: time.Now(), NotAfter: time.Now().Add(c.life)}
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan struct{})

				go func() {
					defer close(done)
					certs.NewVigil(slog.New(slog.NewTextHandler(&log, nil))).Run(ctx,
						certs.Source{Whose: "nobody", Leaf: func() *x509.Certificate { return nil }},
						certs.Source{Whose: "panics", Leaf: func() *x509.Certificate { panic("no connection") }},
						certs.Source{Whose: "ours", Leaf: func() *x509.Certificate { return leaf }, Fixed: c.fixed})
				}()

				if early := c.life - c.warn - time.Second; early > 0 {
					time.Sleep(early)
					synctest.Wait()

					if log.String() != "" {
						t.Errorf("too early: %s", log.String())
					}
				}

				time.Sleep(2 * time.Second)
				synctest.Wait()

				if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "whose=ours") {
					t.Errorf("%d warnings when it is time: %s", n, log.String())
				}

				stop()
				<-done
			})
		})
	}
}

// However many connections show it, a certificate is warned of once in a while.
func TestVigilRepeatsItselfSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journal

		v := certs.NewVigil(slog.New(slog.NewTextHandler(&log, nil)))
		leaf := &x509.Certificate{Raw: []byte("x"), NotBefore: time.Now().Add(-9 * time.Hour), NotAfter: time.Now().Add(time.Hour)}

		for range 3600 {
			v.Saw("a plugin", leaf)
			v.Saw("nobody", nil)
			time.Sleep(time.Second)
		}

		if n := strings.Count(log.String(), "about to end"); n < 4 || n > 8 {
			t.Errorf("%d warnings in the last hour: %s", n, log.String())
		}

		v.Saw("a plugin", leaf)

		if !strings.Contains(log.String(), "has ended") {
			t.Error("nothing said of the end")
		}
	})
}
