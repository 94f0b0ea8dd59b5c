package hosttest

import (
	"net/http"
)

// Capability is a capability of the host.
type Capability struct {
	http.Handler

	Kind, Release string
}

// NewCapability is a capability of a kind and a version that a handler serves.
func NewCapability(handler http.Handler, kind, version string) Capability {
	return Capability{Handler: handler, Kind: kind, Release: version}
}

// CapabilityType is its kind.
func (c Capability) CapabilityType() string { return c.Kind }

// Version is its release.
func (c Capability) Version() string { return c.Release }
