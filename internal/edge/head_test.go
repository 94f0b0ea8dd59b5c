package edge_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// A head that comes in small pieces ends the connection in the time that a head has, however the
// pieces are cut; heads that come whole never do, nor those that take their time one after the other.
func TestAudit_ATK14_HeadsHaveTheirTime(t *testing.T) {
	t.Parallel()
	const limit, pause = time.Hour, 9 * time.Minute // of a bubble
	server, client := certificate(t)
	request := []byte{0x83, 0x87, 0x84, 0x41, 1, 'x'} // POST https://x/
	frames := func(do func(*http2.Framer) error) []byte {
		var b bytes.Buffer
		if err := do(http2.NewFramer(&b, nil)); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	head := func(i uint32) []byte {
		return frames(func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: request, EndHeaders: true, EndStream: true})
		})
	}
	for name, play := range map[string]struct {
		piece func(i int) []byte
		ends  bool
	}{
		"bytes of a frame": {func(i int) []byte {
			return append([]byte{0, 1, 0, 1, 4, 0, 0, 0, 1}, make([]byte, 256)...)[max(0, 10*i-1) : 10*i+9]
		}, true},
		"CONTINUATIONs": {func(i int) []byte {
			return frames(func(f *http2.Framer) error {
				if i == 0 {
					return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: request})
				}
				return f.WriteContinuation(1, false, nil)
			})
		}, true},
		"whole heads": {func(i int) []byte { return head(uint32(i)) }, false},
		"the end of one and the beginning of the next": {func(i int) []byte {
			return append(head(uint32(i))[min(1, i)*12:], head(uint32(i + 1))[:12]...)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client}
				b.serve(t, server)
				close(b.release)
				c := b.dial(t, "127.0.0.1")
				ended := make(chan time.Time, 1)
				if err := begin(c); err != nil {
					t.Fatal(err)
				}
				go func() {
					_, _ = io.Copy(io.Discard, c)
					ended <- time.Now()
				}()
				begun := time.Now()
				for i := range 20 {
					if _, err := c.Write(play.piece(i)); err != nil {
						break
					}
					time.Sleep(pause)
				}
				synctest.Wait()
				select {
				case at := <-ended:
					if took := at.Sub(begun); !play.ends || took != limit {
						t.Errorf("the connection ends after %v", took)
					}
				default:
					if play.ends {
						t.Error("the connection lasts")
					}
				}
			})
		})
	}
}

// begin begins HTTP/2.
func begin(c *tls.Conn) error {
	_, err := io.WriteString(c, http2.ClientPreface)
	if err == nil {
		err = http2.NewFramer(c, nil).WriteSettings()
	}
	return err
}
