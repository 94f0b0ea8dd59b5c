package hosttest

import (
	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Declaring lets a client declare what it provides and requires.
func Declaring(provides, requires []string) func(*connectplugin.ClientConfig) {
	return func(c *connectplugin.ClientConfig) {
		c.Metadata.Provides, c.Metadata.Requires = Provides(provides...), Requires(requires...)
	}
}

func Requiring(types ...string) func(*connectplugin.ClientConfig) {
	return func(c *connectplugin.ClientConfig) { c.Metadata.Requires = Requires(types...) }
}

func Providing(types ...string) func(*connectplugin.ClientConfig) {
	return func(c *connectplugin.ClientConfig) { c.Metadata.Provides = Provides(types...) }
}
