package certs_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// A certificate is good no longer than those that vouch for it.
func TestAudit_ATK08_ACertificateEndsWithItsAuthority(t *testing.T) {
	t.Parallel()
	at := func(hours int) time.Time { return time.Unix(0, 0).Add(time.Duration(hours) * time.Hour) }
	cert := func(subject, issuer string, ends int) *x509.Certificate {
		return &x509.Certificate{RawSubject: []byte(subject), RawIssuer: []byte(issuer), NotAfter: at(ends)}
	}
	leaf, brief, long, root := cert("p", "i", 5), cert("i", "r", 2), cert("i", "r", 7), cert("r", "r", 4)
	later := cert("p", "i", 5)
	later.NotBefore = at(3)
	for name, tt := range map[string]struct {
		shown  []*x509.Certificate
		chains [][]*x509.Certificate
		want   time.Time
	}{
		"none":                        {nil, nil, time.Time{}},
		"itself":                      {[]*x509.Certificate{leaf}, nil, at(5)},
		"itself first":                {[]*x509.Certificate{leaf, long}, nil, at(5)},
		"shown":                       {[]*x509.Certificate{leaf, brief}, nil, at(2)},
		"shown, another's":            {[]*x509.Certificate{leaf, cert("x", "r", 1)}, nil, at(5)},
		"shown, renewed":              {[]*x509.Certificate{leaf, brief, long}, nil, at(5)},
		"shown, with the root":        {[]*x509.Certificate{leaf, long, root}, nil, at(5)},
		"shown, ended before":         {[]*x509.Certificate{later, long, cert("r", "old root", 2)}, nil, at(5)},
		"shown, in a circle":          {[]*x509.Certificate{cert("a", "b", 5), cert("b", "c", 4), cert("c", "b", 3)}, nil, at(3)},
		"verified":                    {[]*x509.Certificate{leaf, brief}, [][]*x509.Certificate{{leaf, brief, root}}, at(2)},
		"verified, by the root's":     {[]*x509.Certificate{leaf}, [][]*x509.Certificate{{leaf, long, root}}, at(4)},
		"verified, in two ways":       {[]*x509.Certificate{leaf, brief}, [][]*x509.Certificate{{leaf, brief, root}, {leaf, long, root}}, at(4)},
		"verified, whatever is shown": {[]*x509.Certificate{leaf, brief}, [][]*x509.Certificate{{leaf, root}}, at(4)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := certs.EndOf(tt.shown, tt.chains); !got.Equal(tt.want) {
				t.Errorf("ends at %v, want %v", got, tt.want)
			}
		})
	}
}
