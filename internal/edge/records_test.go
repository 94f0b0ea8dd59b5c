package edge_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/record"
)

// recorded is a client's connection whose records are written one by one.
type recorded struct {
	*tls.Conn

	out    *record.Writer
	writes int
	rekeys int // after so many writes the key is updated; zero for never
}

func (r *recorded) Write(p []byte) (int, error) {
	var err error
	if r.writes++; r.rekeys > 0 && r.writes%r.rekeys == 0 {
		err = r.out.Update()
	}
	n, failed := r.out.Write(p)
	return n, errors.Join(err, failed, r.out.Flush())
}

func (s *server) dialRecords(ctx context.Context, t *testing.T, cfg *tls.Config) *recorded {
	t.Helper()
	cfg, keys := cfg.Clone(), new(record.Keys)
	cfg.KeyLogWriter = keys
	c, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	conn, _ := c.(*tls.Conn)
	out, err := record.Client(conn, keys, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &recorded{Conn: conn, out: out}
}

// Records of TLS that cost more than their frames explain are counted, too, though no frame says anything of them.
func TestAudit_H48_RecordsThatNothingExplains(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reason       string
		size, before int
		more         func(w *record.Writer) error
	}{
		"updates of the key between records of a byte": {"carry nothing", 1, 16, nil},
		"updates of the key between frames":            {"carry nothing", 0, 16, nil},
		"empty records": {"carry nothing", 0, 0, func(w *record.Writer) (err error) {
			for range 8 { // in a row TLS takes 16
				err = errors.Join(err, w.Empty())
			}
			return err
		}},
		"records of a byte": {"short TLS records", 1, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			r := s.dialRecords(t.Context(), t, s.client)
			a := &attacker{Framer: http2.NewFramer(r, r), conn: r.Conn}
			a.block("/wait")
			if _, err := r.Write([]byte(http2.ClientPreface)); err != nil {
				t.Fatal(err)
			}
			bye := make(chan *http2.GoAwayFrame, 1)
			go func() { bye <- a.goodbye() }()
			if tt.size > 0 {
				r.out.Size = tt.size
			}
			r.out.Before = tt.before
			err := errors.Join(a.WriteSettings(), a.open(1, false))
			for i := 0; err == nil && i < 60; i++ { // which the windows have room for
				if tt.more != nil {
					err = tt.more(r.out)
				}
				if err == nil {
					err = a.WriteData(1, false, make([]byte, 1_000))
				}
			}
			if err == nil {
				err = r.NetConn().(*net.TCPConn).CloseWrite()
			}
			<-bye
			if reason := s.cut.Load(); reason == nil || !strings.Contains(*reason, tt.reason) {
				t.Errorf("cut off for %v, want %q: %v", reason, tt.reason, err)
			}
			if err := s.get(t.Context(), s.http(t), "/", "hello"); err != nil {
				t.Error(err)
			}
		})
	}
}

// An honest peer may write its frames as it likes: head and payload apart, in pieces, and with a new key now and then.
func TestAudit_H48_RecordsOfHonestPeers(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"of nine bytes": 9, "of 24 bytes": 24, "as Go begins": 1_400, "as long as they may be": 16 << 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			//nolint:staticcheck // net/http asks only connections of crypto/tls what they agreed on
			tr := &http2.Transport{TLSClientConfig: s.client, DialTLSContext: func(ctx context.Context, _, _ string, cfg *tls.Config) (net.Conn, error) {
				r := s.dialRecords(ctx, t, cfg)
				r.out.Size, r.rekeys = size, 200
				return r, nil
			}}
			t.Cleanup(tr.CloseIdleConnections) //nolint:staticcheck // as above
			c, body := &http.Client{Transport: tr}, strings.Repeat("x", 4*size)
			for i := range 400 {
				if err := s.get(t.Context(), c, "/", body[:min(len(body), 1<<(i%16))]); err != nil {
					t.Fatalf("call %d: %v; cut off for %v", i, err, s.cut.Load())
				}
			}
			if reason := s.cut.Load(); reason != nil {
				t.Errorf("cut off: %s", *reason)
			}
		})
	}
}
