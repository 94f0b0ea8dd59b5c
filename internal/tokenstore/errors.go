package tokenstore

import (
	"errors"
	"fmt"
)

// Errors of [Store.Issue] and [Store.IssueGrant]. Each says that nothing was issued.
var (
	// ErrFull means that as many identities live as the store may hold.
	ErrFull = errors.New("too many identities in all")

	// ErrTooManyInstances means that as many identities of this self id live as may.
	ErrTooManyInstances = errors.New("too many instances of the self id")

	// ErrTooManyForPeer means that as many identities from this peer live as may.
	ErrTooManyForPeer = errors.New("too many identities for the peer")

	// ErrTooManyGrants means that the owner holds as many live grants as it may.
	ErrTooManyGrants = errors.New("too many grants for the owner")

	// ErrTooManyGrantsOfKin is an ErrTooManyGrants and means that all those who share the bound with the owner hold as
	// many together as they may.
	ErrTooManyGrantsOfKin = fmt.Errorf("%w: of all that share its bounds", ErrTooManyGrants)

	// ErrRandom means that the source of randomness failed, ended early or repeated itself.
	ErrRandom = errors.New("source of randomness failed")
)

// ErrInvalid is what every failure of [Store.Verify], [Store.Match], [Store.Renew] and
// [Store.VerifyGrant] is, and all that a peer may learn. The finer errors are for the host's log.
var ErrInvalid = errors.New("invalid token")

// The reasons of an invalid token. Each of them is an [ErrInvalid].
var (
	// ErrUnknown means that no such identity or grant lives.
	ErrUnknown = fmt.Errorf("%w: unknown id", ErrInvalid)

	// ErrMismatch means that the token is not the one of the identity or grant.
	ErrMismatch = fmt.Errorf("%w: token does not match", ErrInvalid)

	// ErrSuperseded means that a renewal presented a token that was renewed before. It is either a
	// peer that lost the answer to its renewal, or somebody with a stolen token.
	ErrSuperseded = fmt.Errorf("%w: token was renewed already", ErrInvalid)

	// ErrExpired means that the token was right once.
	ErrExpired = fmt.Errorf("%w: expired", ErrInvalid)

	// ErrEnded means that the identity ended, or the owner of the grant did.
	ErrEnded = fmt.Errorf("%w: identity ended", ErrInvalid)

	// ErrRevoked means that the grant was revoked.
	ErrRevoked = fmt.Errorf("%w: revoked", ErrInvalid)

	// ErrFingerprint means that the token was presented without the certificate that it is bound to.
	ErrFingerprint = fmt.Errorf("%w: wrong client certificate", ErrInvalid)
)
