package edge

import (
	"bytes"
	"crypto/tls"
	"net"
	"slices"
	"testing"
	"time"
)

// asked brings records of TLS, and notes how much is read at once.
type asked struct {
	net.Conn

	from *bytes.Reader
	most []int
}

func (a *asked) Read(p []byte) (int, error) {
	a.most = append(a.most, len(p))
	return a.from.Read(p)
}

// Where nobody pays no more is read at once than to the end of a long record of TLS.
func TestAudible_ReadsToTheEndOfARecord(t *testing.T) {
	t.Parallel()
	const room, head, length = 17 << 10, 5, 16 << 10
	record := append([]byte{23, 3, 3, length >> 8, 0}, make([]byte, length)...)
	for name, tt := range map[string]struct {
		account *Account
		want    []int
	}{
		"of nobody":   {nil, []int{beginsWith, head + length - beginsWith, beginsWith}},
		"of somebody": {NewAccount(Rate{}, Rate{}), []int{room, room, room}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := &asked{from: bytes.NewReader(bytes.Repeat(record, 4))}
			s := &slot{listener: &Listener{cfg: Config{TLS: &tls.Config{MinVersion: tls.VersionTLS13}}}}
			rules := usual
			a := &audible{Conn: raw, slot: s, agreed: true, metered: &Conn{slot: s, meter: newMeter(time.Now(), &rules)}}
			a.metered.account.Store(tt.account)
			for range 3 {
				if _, err := a.Read(make([]byte, room)); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(raw.most, tt.want) {
				t.Errorf("read at most %d, want %d", raw.most, tt.want)
			}
		})
	}
}
