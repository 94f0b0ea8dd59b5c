package connectplugin

import (
	"cmp"
	"fmt"
	"net"
)

// Validate returns an error that wraps [ErrInvalidConfig] and names the first
// field that is wrong and what to write instead. It changes nothing.
func (c *ServeConfig) Validate() error {
	if c == nil {
		return fieldError("ServeConfig", "is nil")
	}
	for _, check := range []func() error{
		c.validateTransport, c.validatePlugins, c.validateVersions, c.validateDurations,
		c.Limits.validate, c.HealthProbe.validate, c.HandshakeAuth.validate, c.Policy.validate, c.Policy.validateNames, c.validateServices,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *ServeConfig) validateTransport() error {
	secure := c.TLS != nil || c.Authority != nil
	switch {
	case c.AllowInsecure && secure:
		return fieldError("AllowInsecure", "plaintext and TLS cannot both be served; remove AllowInsecure, or TLS and Authority")
	case !secure && !c.AllowInsecure:
		return fieldError("TLS", "is required; set TLS to a *tls.Config with a certificate, or Authority to one made by NewAuthority "+
			"(AllowInsecure: true serves plaintext, for development only)")
	case c.AllowInsecure && c.HandshakeAuth.RequireCertificate:
		return fieldError("HandshakeAuth.RequireCertificate", "there are no client certificates in plaintext; remove AllowInsecure")
	}
	if c.TLS != nil {
		if _, err := hardenServerTLS(c.TLS); err != nil {
			return err
		}
	}
	if c.Addr != "" {
		if _, _, err := net.SplitHostPort(c.Addr); err != nil {
			return fieldError("Addr", "%q is no host:port: %v", c.Addr, err)
		}
	}
	return nil
}

func (c *ServeConfig) validatePlugins() error {
	if len(c.Plugins) > 0 {
		if err := c.Plugins.Validate(); err != nil {
			return err
		}
	}
	for _, name := range c.Plugins.Keys() {
		if c.Impls[name] == nil {
			return fmt.Errorf("%w: %w: Impls[%q]: is missing; every entry of Plugins needs one", ErrInvalidConfig, ErrInvalidPluginImpl, name)
		}
	}
	for name := range c.Impls {
		if _, ok := c.Plugins.Get(name); !ok {
			return fieldError(fmt.Sprintf("Impls[%q]", name), "there is no entry of that name in Plugins")
		}
	}
	if err := ValidateMetadata(c.ServerMetadata); err != nil {
		return fieldError("ServerMetadata", "%v", err)
	}
	for i, p := range c.AuthProviders {
		if p == nil {
			return fieldError(fmt.Sprintf("AuthProviders[%d]", i), "is nil")
		}
	}
	return nil
}

func (c *ServeConfig) validateVersions() error {
	highest := cmp.Or(c.ProtocolVersion, defaultProtocolVersion)
	lowest := cmp.Or(c.MinProtocolVersion, highest)
	switch {
	case highest < 0:
		return fieldError("ProtocolVersion", "is negative")
	case lowest < 0 || lowest > highest:
		return fieldError("MinProtocolVersion", "must lie between 1 and ProtocolVersion (%d)", highest)
	case c.DeprecatedBelow < 0 || c.DeprecatedBelow > highest:
		return fieldError("DeprecatedBelow", "must lie between 0 and ProtocolVersion (%d)", highest)
	}
	return nil
}

func (c *ServeConfig) validateDurations() error {
	switch {
	case c.GracefulShutdownTimeout < 0:
		return fieldError("GracefulShutdownTimeout", "is negative")
	case c.RuntimeTokenTTL < 0:
		return fieldError("RuntimeTokenTTL", "is negative")
	case c.CapabilityGrantTTL < 0:
		return fieldError("CapabilityGrantTTL", "is negative")
	}
	return nil
}

// validateServices refuses services that belong to different hosts.
func (c *ServeConfig) validateServices() error {
	if c.ServiceRouter == nil {
		return nil
	}
	if c.ServiceRegistry != nil && c.ServiceRegistry != c.ServiceRouter.registry {
		return fieldError("ServiceRegistry", "is not the one that ServiceRouter was made with")
	}
	if c.LifecycleService != nil && c.LifecycleService != c.ServiceRouter.lifecycle {
		return fieldError("LifecycleService", "is not the one that ServiceRouter was made with")
	}
	return nil
}
