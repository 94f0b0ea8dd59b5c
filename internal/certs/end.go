package certs

import (
	"bytes"
	"crypto/x509"
	"time"
)

// EndOf returns until when a certificate is good that a peer showed: it ends with the first of those
// that vouch for it, if not before. chains are those that were verified, of which the last one to end counts. Without
// any, as where a callback verified, what the peer showed beside its own certificate says who vouches for it. Zero is never.
func EndOf(shown []*x509.Certificate, chains [][]*x509.Certificate) (end time.Time) {
	for _, chain := range chains {
		if last := endOfChain(chain); last.After(end) {
			end = last
		}
	}
	if len(chains) > 0 || len(shown) == 0 {
		return end
	}
	return endOfChain(linked(shown))
}

func endOfChain(chain []*x509.Certificate) (end time.Time) {
	for i, c := range chain {
		if i == 0 || c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// linked are the first certificate and, of the others, those that may vouch for the one before: where there are
// several, as while an authority is renewed, the one that ends last. One that had ended before the first was issued
// vouches for none: it is shown for those who trust an old root, as one across to that.
func linked(shown []*x509.Certificate) []*x509.Certificate {
	chain := shown[:1:1]
	for len(chain) < len(shown) {
		var issuer *x509.Certificate
		for _, c := range shown[1:] {
			vouches := bytes.Equal(c.RawSubject, chain[len(chain)-1].RawIssuer) && !c.NotAfter.Before(shown[0].NotBefore)
			if vouches && (issuer == nil || c.NotAfter.After(issuer.NotAfter)) {
				issuer = c
			}
		}
		if issuer == nil || bytes.Equal(issuer.RawSubject, issuer.RawIssuer) {
			break
		}
		chain = append(chain, issuer)
	}
	return chain
}
