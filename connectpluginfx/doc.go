// Package connectpluginfx gives an application built with go.uber.org/fx a client of a
// plugin host, and the host's plugin services as values that constructors ask for.
package connectpluginfx
