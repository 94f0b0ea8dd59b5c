package tokenstore

import (
	"crypto/hmac"
	"crypto/sha256"
)

// Possession returns what only the holder of a token, and the store that issued it, can make of a
// message: HMAC-SHA256 under the first half of the token's SHA-256. It gives nothing of the token away.
func Possession(token string, message []byte) []byte {
	sum := digest(sha256.Sum256([]byte(token)))
	return possession(sum.short(), message)
}

func possession(key shortDigest, message []byte) []byte {
	mac := hmac.New(sha256.New, key[:])
	_, _ = mac.Write(message)
	return mac.Sum(nil)
}

// Possesses reports whether a proof is the [Possession] of the identity's token: the current one, or
// within the grace the one before, which is what its holder may still have.
func (i *Identity) Possesses(message, proof []byte) bool {
	now := i.clock.now()
	st := i.state.Load()
	if !st.good(now) {
		return false
	}
	if hmac.Equal(proof, possession(st.digest.short(), message)) {
		return true
	}
	p := st.previous
	return p != nil && now < p.until && hmac.Equal(proof, possession(p.digest, message))
}
